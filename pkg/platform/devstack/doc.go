// Package devstack runs stand-ins for Kafka, a Redis Cluster and S3 inside one process, for `vitrine dev` and for tests that
// need no real server. Postgres has no stand-in: the package starts the real server as a child process.
//
// Each stand-in passes the same test suite as the real server (test/kafkatest, test/cachetest, test/blobtest). Kafka's
// records and S3's objects are stored on disk and survive a restart. Redis' keys do not, because they are a cache. The
// stand-ins accept any credentials and are meant for the loopback interface only.
//
// Each Start function listens before it returns, and each Close waits for what it started. An error for a port in use names
// the address.
package devstack
