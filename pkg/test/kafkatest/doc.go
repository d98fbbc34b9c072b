// Package kafkatest is the suite that every Kafka has to pass with this house's publisher, consumer and admin: a real
// broker and the in-process stand-in alike.
//
// It holds the promises that nothing is lost and nothing is dropped silently: what fails comes again, what was not
// finished comes again after a stop and after a death, a rebalance loses nothing, an unreadable record is kept.
package kafkatest
