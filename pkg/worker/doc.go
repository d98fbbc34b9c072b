// Package worker is what happens to one picture: a request comes in, the source is fetched, renditions are made and stored,
// and the outcome is written. It also holds the two sweepers that repair what crashes leave behind.
//
// [Worker.Handle] is the whole story of one request, and safe to repeat at any point: Begin takes work over, an attempt that
// has been overtaken finds its fence raised and stops, objects of dead attempts go by their intents. It returns nil when the
// request has been dealt with, whatever the outcome, and an error only when it has to come again: when Postgres could not be
// told, or when the process is stopping.
//
// What follows from a failure is decided in one place, outcome.go: permanent faults fail the picture, transient ones spend
// an attempt and come again later, faults of our own come again without spending one.
//
// A request whose earlier attempts died without a word runs alone in its process, so that what kills workers takes nothing
// with it.
//
// The [Circuits] keep it from taking requests while something that every picture needs is away.
//
// The [Auditor] compares bucket and rows, and the [Reprocessor] asks anew for many pictures, behind live traffic.
//
// The [Sweeper] repeats requests whose work should long be done, under the same ticket. The [Compensator] is the only one
// who deletes objects. Neither needs to be alone: several of each may run.
package worker
