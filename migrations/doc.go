// Package migrations is the history of the database schema: numbered SQL files, applied in order and never changed once
// released.
//
// Each file is one transaction with a way up and a way down, in goose's format. They name no schema, so that they work in
// whatever search_path the connection has. What they add up to stands in docs/schema.sql, which a test of
// package postgres compares with the files.
//
// A file that fails leaves nothing behind, and the ones before it stay.
package migrations
