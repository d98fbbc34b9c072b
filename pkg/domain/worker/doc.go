// Package worker handles jobs: it downloads the source of an image, renders it, stores the files and records the outcome.
//
// A job of a backfill reads the kept original of its image instead of the URL, if there is one; see original.go.
//
// [Worker.Handle] handles one job in four steps: admit, begin, process, report. It may be repeated at any point: Begin
// supersedes an earlier attempt, a superseded attempt stops, and the objects of crashed attempts are deleted on schedule.
// It returns nil when the job is complete; a job is also complete when the image has failed. It returns an error when the
// message must be delivered again, because the outcome could not be recorded or the process stops.
//
// outcome.go maps a failure to its outcome: a permanent failure fails the image, a transient one costs an attempt and is
// retried later, a deferrable one is retried later at no cost. An image whose earlier attempts ended without an outcome is
// processed in isolation, so that a crash ends no other attempt. The [Breakers] pause the intake of requests while a
// dependency that every image needs is down. [Egress] tells an outage of the network, which costs no attempt, from the
// failure of one source.
package worker
