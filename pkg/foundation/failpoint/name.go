package failpoint

// Name is a step at which a program can be crashed: a package, and what it has just done.
type Name string

// The steps, in the order in which a new product's image passes them.
const (
	// A client's change.
	InsertWritten     Name = "postgres.insert.written" // a product, its images and jobs are written, not committed
	KeyWritten        Name = "postgres.key.written"    // the same, a user or a reprocess, with a saved response
	CreateCommitted   Name = "catalog.create.committed"
	RevisionCommitted Name = "catalog.revision.committed" // a PATCH, a DELETE or a reprocess

	// The relay.
	BatchClaimed        Name = "postgres.batch.claimed" // messages are locked, none is sent
	RelayPublished      Name = "relay.published"        // Kafka has acknowledged them, no row is deleted
	BatchDeleted        Name = "postgres.batch.deleted" // the rows of sent messages are deleted, not committed
	RelayBatchCommitted Name = "relay.committed"        // committed

	// The worker. It writes rows with Edit.
	WorkerTaken        Name = "worker.taken" // a job has been received, nothing is done yet
	EditWritten        Name = "postgres.edit.written"
	WorkerBegun        Name = "worker.begun"
	WorkerFetched      Name = "worker.fetched"
	WorkerRendered     Name = "worker.rendered"
	ObjectStored       Name = "blob.stored"   // one object
	WorkerStored       Name = "worker.stored" // all objects of an image
	OutcomeCommitted   Name = "catalog.outcome.committed"
	OutcomeInvalidated Name = "catalog.outcome.invalidated" // the cache entry is deleted

	// Every consumer.
	KafkaHandled Name = "kafka.handled" // the handler has returned, the offset is not marked
	KafkaMarked  Name = "kafka.marked"  // marked, not yet committed to the group

	// The api's consumer of products.changed, and its maintenance.
	ChangeReceived     Name = "catalog.change.received" // the cache is not invalidated yet
	RepublishCommitted Name = "catalog.republish.committed"
	DeletionStarted    Name = "maintenance.deletion.started" // no object below the prefix is deleted
	PrefixDeleted      Name = "maintenance.prefix.deleted"   // in the first or in the second pass

	// The walk of a backfill.
	BackfillStarted   Name = "backfill.started"   // it is running, no image is requested
	BackfillRequested Name = "backfill.requested" // one image, the position is not saved
	BackfillDropped   Name = "backfill.dropped"   // one job of a suspended or ended backfill
	BackfillSaved     Name = "backfill.saved"     // the position

	// The samples of a canary.
	SampleStored Name = "worker.sample.stored" // all objects of a sample
)
