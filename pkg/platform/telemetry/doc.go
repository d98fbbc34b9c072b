// Package telemetry is how a program shows what it does: its log, its metrics, its health, and the admin port that serves
// them.
//
// The log is JSON, one object a line, with the keys ts (RFC 3339, UTC, nanoseconds), level, logger, msg, service and
// version; stack stands on panics only. A field called duration, or whose type is one, is a number of seconds. Nothing is
// redacted here: what must not be seen is not logged. No line is dropped unless sampling is configured, and then a counter
// tells how many.
//
// Liveness and readiness are different questions. /healthz says that the process answers, and nothing else: a restart
// repairs no database. /readyz asks everything the program needs, see [Health].
//
// The admin port serves metrics, health, the log level and profiles to whoever reaches it, so it is never exposed outside
// the cluster.
package telemetry
