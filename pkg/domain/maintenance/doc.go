// Package maintenance has the repair tasks of the api process, which runs them beside its HTTP servers.
//
// The [Rescuer] publishes overdue jobs again, under the same job id. The [GarbageCollector] deletes the objects that are
// scheduled for deletion; nothing else deletes objects. The [Cleaner] removes the rows of products deleted long ago and old
// idempotency keys. The [Auditor] compares the bucket with the rows, and the [Reprocessor] requests images in bulk, at a
// limited rate.
//
// Any number of processes may run all of them at the same time.
package maintenance
