// Package migrations contains the migrations of the database schema: numbered SQL files, applied in order, which do not
// change once they are released.
//
// Each file is one transaction up and one down, in goose's format. The files name no schema, so they work in the search_path
// of the connection. docs/schema.sql is the schema that results; a test of package postgres compares it with the migrations.
//
// If a file fails, nothing of it remains, and the earlier ones stay applied.
package migrations
