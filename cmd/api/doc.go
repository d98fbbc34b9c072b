// Command api is the front of Vitrine: it answers HTTP, moves committed messages to Kafka, keeps the cache honest and
// repairs what crashes left behind. Any number of them may run; --help lists what can be configured.
package main
