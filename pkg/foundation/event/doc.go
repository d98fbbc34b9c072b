// Package event defines the messages that the programs of Vitrine exchange through Kafka.
//
// A message is a JSON body plus headers (event id, type, version, traceparent). Its key is the product id in decimal, so
// all messages of one product share a partition. Bodies have ids, a URL and a hash, never the bytes of an image.
//
// Compatibility: a consumer accepts the version that it knows and older ones; fields are added and never renamed; a breaking
// change is a new version, and both are read for one release. A consumer receives each message at least once, and depends on
// job ids, fencing tokens and versions, not on the order of messages.
//
// A record that cannot be decoded is stored as an [Undecodable] with its coordinates, so that no record is lost.
package event
