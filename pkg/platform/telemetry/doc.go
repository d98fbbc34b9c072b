// Package telemetry has the log, the metrics and the health of a program, and the admin port that serves them.
//
// The log is JSON, one object a line, with the keys ts (RFC 3339, UTC, nanoseconds), level, logger, msg, service and
// version; only panics have stack. Durations are in seconds. Nothing is redacted: secrets must not be logged. No line is
// dropped unless sampling is configured; a counter has the number of dropped lines.
//
// Liveness and readiness differ. /healthz reports only that the process responds, because a restart does not repair a
// database. /readyz reports whether the program should get requests, see [Health].
//
// The admin port does not authenticate its clients. It must not be reachable from outside the cluster.
package telemetry
