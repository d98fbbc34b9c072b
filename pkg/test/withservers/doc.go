// Servers runs a command beside real servers: it starts Postgres, a Redis Cluster, Kafka and MinIO, runs the command with
// the variables that tests find them by, stops them, and exits as the command did.
//
//	go run ./pkg/test/withservers -- go test ./...
//
// Signals go to the command, which ends when it likes; then the servers are stopped. If this program itself is killed, the
// kernel ends the servers and the command.
package main
