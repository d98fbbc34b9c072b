// Package postgres stores users, products, images and the outbox in a PostgreSQL database.
//
// One method is one transaction: a change, its events and its scheduled deletions commit together or not at all. Every
// method is bounded by [Config].Timeout, including the wait for a connection, and is measured by name and outcome. SQL
// statements are constants beside the method that sends them, and name every column. gorm only carries rows; its own writes
// (Save, Updates of a struct, hooks, soft deletion, migration) are not used. Times are those of the database.
//
// Locks are taken in the order product, image, scheduled deletion. [Store.Edit] locks the product with one statement and
// reads its images with the next. A single statement would read the images as they were before the wait for the lock, and of
// two images that finish at once one would be lost. A list and a product are each read by one statement, so each is one
// snapshot.
//
// Failure: a database that is down, full, in recovery or too slow is fault.Unavailable. A connection that breaks during
// COMMIT is catalog.ErrOutcomeUnknown; this package does not repeat such a transaction. A caller that cancels gets its
// context.Canceled back; a deadline that passes is fault.Unavailable, whether the caller or this package set it. [Open] does
// not connect, so a program can start while the database is down.
//
// [Outbox] has its own pool, so that store and relay cannot use up each other's connections. A message that Kafka refuses
// waits longer after each try and is parked in the end; a Kafka that cannot be reached costs no tries. Messages for a
// partition that does not answer are delayed for a few seconds while others are published. A claim starts at the resume
// point, where the last one ended, for about a second, and so does not walk over dead rows that cannot be vacuumed yet. The
// age of the oldest open transaction, which prevents the vacuum, is a metric.
package postgres
