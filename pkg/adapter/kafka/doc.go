// Package kafka sends Vitrine's messages to Kafka and receives them from it, so that none is lost and none is dropped
// silently.
//
// # Sending
//
// [Publisher] is idempotent, waits for all in-sync replicas and answers for each message. It has a client of its own, made
// on first use, so a process starts while Kafka is down; a client that failed is thrown away, because its sequence numbers
// can no longer be trusted. Publish always comes back within about four seconds: at the bound its connections are cut,
// which makes sarama answer for whatever is left.
//
// # Receiving
//
// [Consumer] works on several messages of a partition at once and marks only the contiguous finished prefix, so the
// committed offset never passes a message that is not done. An error or a panic of the handler is a repeat with backoff,
// never a skip. A record that nobody can read goes to the dead topic and is marked after that send was acknowledged.
// Messages with the same Exclusive key never run at the same time in one process. When the session ends (a rebalance, a
// shutdown) nothing new is started, work in flight gets half of the rebalance timeout, then its context ends; what
// finished is marked before the partition is let go.
//
// Offsets are committed once a second and when the session ends, never per message: a commit waits behind the long-poll
// fetch on the same connection, which made 300 messages take 24 s.
//
// # Looking
//
// [Reader] reads a topic from its beginning to what is its end when it begins, and leaves no trace. [Publisher.Resend] sends
// what it found once more, byte for byte.
//
// # Topics
//
// [Admin] makes the topics and says where existing ones differ from the configuration. It never grows a topic, because
// that moves keys to other partitions.
package kafka
