// Configdoc merges the configuration tables of all programs into one page and one .env example, with each variable once.
//
//	api --help-markdown >DIR/api.md
//	worker --help-markdown >DIR/worker.md
//	go run ./.ci/tools/configdoc -page docs/configuration.md -example .env.example DIR/api.md DIR/worker.md
//
// The name of a table's file is the name of its program. Variables are in the order of their first table. A variable with
// different descriptions in two tables is an error, because all programs can share one environment.
package main
