// Package worker processes image requests: it downloads the source, renders it, stores the files and records the outcome.
//
// [Worker.Handle] handles one request in four steps: admit, begin, process, report. It may be repeated at any point: Begin
// takes the image over from an earlier attempt, a superseded attempt stops, and the objects of attempts that crashed are
// deleted on schedule. It returns nil when the request is complete, also when the image failed. It returns an error when the
// message must be delivered again: the outcome could not be recorded, or the process stops.
//
// outcome.go maps a failure to its outcome: a permanent failure fails the image, a transient one costs an attempt and is
// retried later, a deferrable one is retried later at no cost. An image whose earlier attempts ended without an outcome is
// processed in isolation, so that a crash ends no other attempt. The [Breakers] pause the intake of requests while a
// dependency that every image needs is down. [Egress] tells an outage of the network, which costs no attempt, from the
// failure of one source.
package worker
