// Command worker processes images: it consumes jobs from Kafka, downloads sources, has codec processes render them, and
// stores the renditions. The topic's number of partitions limits the instances that get work; --help lists the settings.
//
// It links no image library: its child process, cmd/codec, decodes the untrusted images.
package main
