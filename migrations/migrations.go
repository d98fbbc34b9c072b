package migrations

import "embed"

// FS contains the files, named NNNNN_subject.sql. It is read-only.
//
//go:embed *.sql
var FS embed.FS
