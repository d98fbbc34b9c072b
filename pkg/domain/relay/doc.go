// Package relay carries committed messages from the outbox to Kafka: every one at least once, in no particular order.
//
// A [Relay] works in rounds, one at a time. A round claims due rows, publishes them and deletes those that Kafka
// acknowledged, all within the outbox's transaction, so a process that dies in a round publishes again and loses nothing. A
// full round is followed by the next at once. The process that commits a message calls Wake; a poll a few times a second
// finds what other processes, or the passing of time, made due. A backlog goes out at [Config].Rate, so that live traffic is
// not slowed.
//
// While the database or Kafka is down the relay waits longer and longer, up to five seconds, and says so once. A message
// that Kafka refuses is put off and finally parked by the outbox, with an alert; it holds nobody else up. Nor
// does a partition that cannot be reached: while others take something, that is no outage. Several relays
// may run. Publishing twice is harmless, because consumers rely on tickets, fences and versions.
package relay
