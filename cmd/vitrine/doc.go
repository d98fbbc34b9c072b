// Command vitrine is the CLI for operators: it sets up the servers, migrates the database, checks pipelines and lists which
// are in force, tests a running system from outside, and runs the whole system on one machine for development. Each command
// has its own file.
package main
