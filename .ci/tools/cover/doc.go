// Cover merges coverage profiles, prints each package's share of statements that ran, and fails below a minimum.
//
//	go run ./.ci/tools/cover -min 94 -without ^pkg/test/bench/ -o coverage/all.out coverage/tests.out coverage/programs.out
//
// A block counts as run if any profile says so: the tests' own, or that of a program which a test ran. Generated files are
// left out, and files whose path matches -without. The working directory is the repository.
package main
