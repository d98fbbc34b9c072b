// Withservers runs a command with real servers: it starts Postgres, a Redis Cluster, Kafka and MinIO, runs the command with
// the environment variables that package servers reads, stops the servers, and exits with the exit code of the command.
//
//	go run ./pkg/test/withservers -- go test ./...
//
// It forwards signals to the command, waits until the command ends, and then stops the servers. If this program is killed,
// the kernel ends the servers and the command.
package main
