// Package postgres stores users, products, images and the outbox in a PostgreSQL database.
//
// One method is one transaction: a change, its events and its scheduled deletions commit together or not at all. Every
// method is bounded by [Config].Timeout, including the wait for a connection, and is measured by name and outcome. SQL
// statements are constants beside the method that sends them, and name every column. gorm is used only to send statements
// and read rows, not for its writes (Save, Updates of a struct, hooks, soft deletion, migration). Times are those of the
// database.
//
// Locks are taken in the order product, image, scheduled deletion. [Store.Edit] locks the product with one statement and
// reads its images with the next. A single statement would read the images as they were before the wait for the lock, and of
// two images that finish at once one would be lost. A list and a product are each read by one statement, so each is one
// snapshot.
//
// Errors: if the database is down, full, in recovery or too slow, the error is fault.Unavailable. If a connection breaks
// during COMMIT, it is catalog.ErrOutcomeUnknown; this package does not repeat such a transaction. If the caller cancels,
// it is context.Canceled. If a deadline of the caller or of this package passes, it is fault.Unavailable. [Open] does not
// connect, so a program can start while the database is down.
//
// [Outbox] has its own pool, so that store and relay cannot use up each other's connections. A message that Kafka refuses
// waits longer after each try, and is parked after the last one; a try does not count if Kafka cannot be reached.
// Messages for a partition that does not answer are delayed for a few seconds while others are published. For about a
// second, each claim starts at the resume point, where the last one ended, and so does not read dead tuples that VACUUM
// cannot remove yet. The age of the oldest open transaction, which prevents the vacuum, is a metric.
package postgres
