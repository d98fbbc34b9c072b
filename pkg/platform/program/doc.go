// Package program is what every long-running program is around its own parts: help, configuration, log, metrics, the
// pipeline in force, and the way to end.
//
// [Run] reads the configuration and tells all that is wrong with it, on stderr and in words; from then on everything that is
// said is a line of the log. It hands the program a [App] and turns what comes back into an exit code.
//
// [Kit.Follow] keeps the pipeline in force equal to its file and tells of it in three ways: a line of the log for each
// reload, the metrics vitrine_pipeline_*, and a heartbeat, which is a row in the database, for who asks all instances at
// once. A database that is away costs the heartbeat, and nothing else.
package program
