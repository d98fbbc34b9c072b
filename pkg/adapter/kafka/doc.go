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
// [Consumer] handles several messages of a partition concurrently and marks only the contiguous finished prefix, so the
// committed offset never passes a message that is not done. An error or a panic of the handler is retried with backoff;
// a message is never skipped. A record that cannot be decoded is sent to the dead-letter topic and marked after that send
// was acknowledged. Messages with the same ordering key never run at the same time in one process. When the session ends
// (a rebalance, a shutdown), no message is started any more; handlers that run have half of the rebalance timeout before
// their context ends, and what they finish is marked before the partition is released.
//
// Offsets are committed once a second and when the session ends, not per message: a commit waits behind the long-poll
// fetch on the same connection. With a commit per message, 300 messages needed 24 s.
//
// # Reader
//
// [Reader] reads a topic from its beginning to the end that it has when the read starts. It joins no group and commits
// nothing. [Publisher.Resend] sends a record that it returned with the same bytes and headers.
//
// # Admin
//
// [Admin] creates the topics and reports how existing topics differ from the configuration. It never adds partitions to
// a topic, because that moves keys to other partitions.
package kafka
