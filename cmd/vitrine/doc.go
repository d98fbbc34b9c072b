// Command vitrine is for those who run Vitrine: it sets the servers up, migrates the database, checks pipelines and sees
// them arrive, tries a running system from outside, and runs the whole system on one machine for development. One file holds
// one command.
package main
