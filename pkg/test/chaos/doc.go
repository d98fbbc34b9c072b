// Chaos checks that Vitrine loses no acknowledged data when its programs and servers crash. It runs api and worker as
// processes on real servers and lets clients use them while it kills, pauses and disconnects processes. Then it ends all
// faults, waits until the system is idle, and checks the state that remains.
//
// The schedule of faults is a pure function of the seed ([Plan]). The interleaving of the processes is not: two runs of one
// seed inject the same faults at the same times, but may end in different states.
//
// The checker reads a [Snapshot] from Postgres, Kafka, the bucket and the API, without using code of the programs, and
// applies [Rules], which are plain functions, to it. A database trigger records every change of a row, so that the rules
// also cover intermediate states.
//
// A failed run keeps a directory with the logs of all programs, the clients' histories and the history of the rows.
package main
