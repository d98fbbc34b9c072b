// Package storetest is the conformance suite of catalog.Store and catalog.Pipelines. The store on Postgres and the in-memory
// store of catalog's tests both pass it, so that what a test sees on the second one holds for the first one.
//
// Each subtest opens an empty store. The suite never sleeps and moves no clock: where the past matters, it writes times in
// the past. Several subtests run two calls at once and fail if the lock that orders them is taken out.
//
// Fixture is shared with the tests of pkg/adapter/postgres, which check what only that store does: the outbox, scheduled deletions,
// lists and maintenance.
package storetest
