// Package servers starts real servers for tests: Postgres, a Redis Cluster, Kafka, an S3 store, and an API server of
// Kubernetes, which [KubernetesAPI] returns.
//
// [Postgres], [Redis], [Kafka] and [S3] return a private part of a shared server: a schema, a key prefix, a topic prefix or
// a bucket. So tests run in parallel, and each one removes only its own data. A test that stops a server starts its own
// with [PostgresServer], [RedisServer] or [KafkaServer].
//
// A shared server starts on its first use, as a child process on a port of 127.0.0.1 with its files in a temporary
// directory. Package [vitrine.io/pkg/test/port] reserves its ports as long as it exists, also while a test has stopped it.
// If the environment names a running server (VITRINE_TEST_POSTGRES, _REDIS, _KAFKA, _S3), the tests use that one. The
// program in pkg/test/withservers starts all four servers once, and runs a command such as go test ./... with these
// variables set.
//
// A server never outlives the process that started it: if that process is killed, the kernel signals its children. The next
// start removes the files that a killed process left. A server that is not installed or does not start fails the test with
// an instruction; only go test -short, which needs no servers, skips the test.
package servers
