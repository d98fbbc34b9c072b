// Package kafkatest is the conformance suite of package kafka with a broker: a real one or the in-process stand-in.
//
// It tests at-least-once delivery: a failed message is retried, an unfinished message is redelivered after a stop and after
// a crash, a rebalance loses no message, and an undecodable record is sent to the dead-letter topic.
package kafkatest
