// Package maintenance repairs what crashes and accidents leave behind. The api process runs it beside the requests.
//
// The [Rescuer] publishes overdue jobs again, under the same ticket. The [GarbageCollector] deletes the objects that are
// scheduled for deletion; nothing else deletes objects. The [Cleaner] removes the rows of products deleted long ago and old
// idempotency keys. The [Auditor] compares the bucket with the rows, and the [Reprocessor] requests images in bulk, behind
// live traffic.
//
// Any number of processes may run all of them at the same time.
package maintenance
