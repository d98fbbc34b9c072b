// Reference merges what each program says of its configuration into one page and one .env example, each variable once.
//
//	api --help-markdown >DIR/api.md
//	worker --help-markdown >DIR/worker.md
//	go run ./pkg/platform/config/reference -page docs/configuration.md -example .env.example DIR/api.md DIR/worker.md
//
// Programs are named by their files, and variables stand in the order in which the programs first tell them. A variable that
// two programs describe differently is an error: one environment serves them all.
package main
