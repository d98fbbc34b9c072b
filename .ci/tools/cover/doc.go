// Cover merges coverage profiles, prints the share of executed statements for each package, and fails below a minimum.
//
//	go run ./.ci/tools/cover -min 94 -without ^pkg/test/bench/ -o coverage/all.out coverage/tests.out coverage/programs.out
//
// A block counts as executed if it is in any profile: that of the tests, or that of a program which a test ran. Generated
// files and files whose path matches -without do not count. The working directory is the repository's root.
package main
