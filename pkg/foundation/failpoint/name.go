package failpoint

// Name is a step that a program can be crashed at: the room, and what has just happened there.
type Name string

// The steps, in the order of the line.
const (
	// A client's change.
	InsertWritten     Name = "postgres.insert.written" // a product, its pictures and requests are written, not committed
	KeyWritten        Name = "postgres.key.written"    // the same with an Idempotency-Key, and the answer kept under it
	CreateCommitted   Name = "catalog.create.committed"
	RevisionCommitted Name = "catalog.revision.committed" // a patch, a deletion, a request to reprocess

	// The relay.
	DrainClaimed   Name = "postgres.drain.claimed" // messages are locked, none is sent
	RelayPublished Name = "relay.published"        // Kafka has answered, no row is deleted
	DrainDeleted   Name = "postgres.drain.deleted" // rows of what was sent are deleted, not committed
	RelayDrained   Name = "relay.drained"          // committed

	// The worker. What it writes, it writes with Edit.
	WorkerTaken      Name = "worker.taken" // the request is here, nothing is done about it
	EditWritten      Name = "postgres.edit.written"
	WorkerBegun      Name = "worker.begun"
	WorkerFetched    Name = "worker.fetched"
	WorkerRendered   Name = "worker.rendered"
	ObjectStored     Name = "blob.stored"   // one object
	WorkerStored     Name = "worker.stored" // all objects of a picture
	OutcomeCommitted Name = "catalog.outcome.committed"
	OutcomeTold      Name = "catalog.outcome.told" // to the cache

	// Every consumer.
	KafkaHandled Name = "kafka.handled" // the handler is done with a record, its offset is not marked
	KafkaMarked  Name = "kafka.marked"  // marked, not yet committed to the group

	// The api's consumer of products.changed, and its sweepers.
	ChangeReceived  Name = "catalog.change.received" // the cache has not been told
	RepeatCommitted Name = "catalog.repeat.committed"
	DeletionStarted Name = "worker.intent.doomed"  // nothing below the prefix is deleted
	PrefixDeleted   Name = "worker.prefix.deleted" // for the first or for the second time
)
