// Command api serves the HTTP API, relays committed messages to Kafka, invalidates the cache, and runs maintenance: overdue
// jobs, cleaning, garbage collection and audits. Any number of instances may run; --help lists the settings.
package main
