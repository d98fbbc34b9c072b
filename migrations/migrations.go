package migrations

import "embed"

// FS holds the files, named NNNNN_what.sql. It is read only.
//
//go:embed *.sql
var FS embed.FS
