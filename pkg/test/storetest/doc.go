// Package storetest is the conformance suite of catalog.Store and catalog.Pipelines. The store on Postgres and the in-memory
// store of catalog's tests both pass it, so that tests on the in-memory store are valid for Postgres.
//
// Each subtest opens an empty store. The suite does not sleep and sets no clock; it writes times in the past where it needs
// them. Several subtests make concurrent calls and fail without the lock that orders them.
//
// The tests of pkg/adapter/postgres use Fixture too. They check the features of that store alone: outbox, scheduled
// deletions, lists and maintenance.
package storetest
