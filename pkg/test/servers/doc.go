// Package servers gives a test real servers: Postgres, a Redis Cluster, Kafka and an S3 store, all to itself.
//
// A test asks for what it needs ([Postgres], [Redis], [Kafka], [S3]) and is given a private corner of a running server: a
// schema, a key prefix, a topic prefix, a bucket. So tests run in parallel and clean up after nobody but themselves. A test
// that has to stop a server asks for one of its own ([PostgresServer], [RedisServer], [KafkaServer]).
//
// A server starts when it is first asked for, as a child process on a port of 127.0.0.1 with its files in a temporary
// directory. Its ports are reserved by [vitrine.io/pkg/test/port] while it lives, also while a test has it stopped. If the environment names a running one (VITRINE_TEST_POSTGRES, _REDIS, _KAFKA, _S3), that one is used and
// nothing is started; the program in pkg/test/withservers starts all four once and runs a command, such as go test ./...,
// with those variables set.
//
// Invariants: nothing outlives the process that started it, even if it dies by SIGKILL (the kernel then signals the
// children), and the directories it left behind are removed by the next start. A server that is missing or does not
// come up is a failure that says what to do, never a skip; only go test -short, which is a promise to need no server, skips.
package servers
