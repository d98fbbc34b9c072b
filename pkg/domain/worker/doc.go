// Package worker handles requests for images: it fetches the source, has it rendered, stores the files, writes the outcome.
//
// [Worker.Handle] handles one request, in four steps: admit, begin, process, report. Repeating it at any point is safe:
// Begin takes the work over, an attempt that another has superseded stops, and the objects of attempts that crashed are
// deleted on schedule. It returns nil when the request has been dealt with, whatever the outcome, and an error only when the
// request has to come again: when the outcome could not be written, or when the process is stopping.
//
// outcome.go decides what follows from a failure: a permanent one fails the image, a transient one costs an attempt and is
// retried later, and one of the platform's own is retried later at no cost. An image whose earlier attempts ended without an
// outcome runs alone in its process, so that a crash ends no other work. The [Breakers] pause the intake of requests while a
// dependency of every image is down.
package worker
