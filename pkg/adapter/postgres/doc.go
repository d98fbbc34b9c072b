// Package postgres keeps users, products, pictures and waiting messages in a PostgreSQL database.
//
// One method is one transaction: a change, its events and its intents commit together or not at all. Every method
// is bounded by [Config].Timeout, waiting for a connection included, and is measured by name and outcome. SQL
// stands as constants beside the method that sends it, with every column named; gorm carries rows, and none of its own
// writing (Save, Updates of a struct, hooks, soft deletion, migration) is used. Times are the database's.
//
// Locks are always taken in the order product, picture, intent. [Store.Edit] locks the product with a statement of its
// own and reads the pictures with the next: read together, the pictures would be those of before the wait for the lock,
// and of two pictures that finish at once one would be lost. Lists and products are read by one statement, so each is one
// snapshot.
//
// Failure: a database that is down, full, in recovery or too slow is fault.Unavailable. A connection that breaks while
// COMMIT is under way is catalog.ErrOutcomeUnknown: nobody here repeats such a transaction. A caller that
// cancels gets its own context.Canceled back; a deadline that passes is fault.Unavailable, whoever set it. [Open]
// needs no server, so a program starts and waits while the database is away.
//
// [Outbox] has a pool of its own, so that neither side can use up the other's connections. Rows that Kafka refuses are put
// off and at last parked, alone; a Kafka that cannot be reached is not counted against them. Rows of a
// partition that is in trouble step aside for a few seconds while others are published. A claim begins where the last one
// ended, for a second at most, and so does not walk over what cannot be vacuumed yet; how old the oldest transaction is that
// keeps it so is a metric.
package postgres
