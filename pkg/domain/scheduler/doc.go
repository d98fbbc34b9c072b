// Package scheduler decides which jobs the workers get next.
//
// A job waits in its row until it is released: one transaction sets its time of release and inserts its message into the
// outbox, so that no release is lost and none happens twice. In flight are the jobs that are released and have not ended.
// Two windows bound them: one for each host, and one for all jobs. Their number is counted from the rows in each round and
// stored nowhere, so that it cannot drift, and no row is written by all transactions.
//
// A round shares what the windows leave. The free capacity of a host goes to the user with the fewest jobs in flight at
// that host, one job at a time, and the free capacity in all goes to the user with the fewest jobs in flight. Equals take
// turns. So a user with
// ten images gets them released next, however many others wait. Live jobs go before bulk jobs.
//
// Any number of schedulers may run. A round of one excludes the rounds of the others; correctness does not depend on it,
// because each job is locked when it is released.
package scheduler
