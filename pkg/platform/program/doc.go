// Package program has what every long-running program does beside its own work: help, configuration, log, metrics, the
// pipeline in force, and shutdown.
//
// [Run] reads the configuration. If the configuration is not valid, it prints every invalid setting to stderr. After
// that, all output is in the log. Run passes an [App] to the program and turns the error that the program returns into an
// exit code.
//
// [App.Follow] keeps the pipeline in force equal to its file and reports it in three ways: a log line for each reload, the
// metrics vitrine_pipeline_*, and a heartbeat, which is a row in the database, for those who query all instances. Errors of
// the database affect only the heartbeat.
package program
