// Package relay moves committed messages from the outbox to Kafka: each at least once, in no particular order.
//
// A [Relay] works in batches, one at a time. A batch claims due rows, publishes them and deletes the acknowledged ones, all
// in one transaction of the outbox: if the process crashes during a batch, its messages are published again. The next batch
// follows a full one without a pause. The process that commits a message calls Wake; a poll every [Config].Poll finds rows
// of other processes and rows that became due. A backlog is published at [Config].Rate, so that it does not slow live
// traffic.
//
// While the database or Kafka is down, the relay waits up to five seconds between batches, and logs one line. The outbox
// delays a message that Kafka refuses, and finally parks it, with an alert; other messages do not wait for it. A batch in
// which Kafka acknowledged at least one message is no outage, so messages for other partitions do not wait for a partition
// without a leader. Several relays may run. Duplicates are harmless: consumers compare job ids, fencing tokens and versions.
package relay
