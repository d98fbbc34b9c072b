// Package event is the wire contract of every Kafka message: what the parts of Vitrine say to each other.
//
// A message is a JSON body plus headers (event id, type, version, traceparent). Its key is the product id in decimal, so
// all messages of one product share a partition. Bodies carry ids, a URL and a hash, never picture bytes.
//
// Compatibility: a consumer accepts the version it knows and older ones; fields are added, never renamed; a breaking
// change is a new version, and both are read for one release. Consumers rely on ids, tickets, fences and versions, never on
// order, and see every message at least once.
//
// A record that cannot be decoded is wrapped in an [Undecodable] with its coordinates, so that nothing is dropped
// silently.
package event
