// Package kafka sends messages to Kafka and receives them, with at-least-once delivery in both directions.
//
// # Publisher
//
// [Publisher] is idempotent, waits for all in-sync replicas and reports a result for each message. It connects on first
// use, so a process starts while Kafka is down. A client that failed is replaced, because its sequence numbers have a gap.
// Publish returns within about four seconds: when its timeout expires, its connections are closed, which makes sarama
// report every message that is left.
//
// # Consumer
//
// [Consumer] handles several messages of a partition concurrently and marks only the longest run of finished messages
// without a gap, from the start. So the committed offset is never beyond a message that is not done. An error or a panic
// of the handler is retried with backoff; a message is never skipped. A record that cannot be decoded is sent to the
// dead-letter topic, and marked after Kafka has acknowledged it there. A consumer never handles messages with the
// same ordering key at the same time. When the session ends (a rebalance, a shutdown), no further message is started.
// Running handlers have half of the rebalance timeout before their context ends, and the messages that they finish are
// marked before the partition is released.
//
// Offsets are committed once a second and when the session ends, not per message: a commit waits behind the long-poll
// fetch on the same connection. With a commit per message, 300 messages needed 24 s.
//
// # Reader
//
// [Reader] reads a topic from its beginning to the end that it has when the read starts. It joins no group and commits
// nothing. [Publisher.Resend] sends such a record again, with the same bytes and headers.
//
// # Admin
//
// [Admin] creates the topics and reports how existing topics differ from the configuration. It never adds partitions to
// a topic, because that moves keys to other partitions.
package kafka
