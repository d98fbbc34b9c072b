// Command worker makes pictures: it takes requests from Kafka, fetches sources, has codec processes render them, and stores
// the renditions. Any number of them may run, up to the topic's partitions; --help lists what can be configured.
//
// It links no image library: what decodes other people's pictures is cmd/codec, its child process.
package main
