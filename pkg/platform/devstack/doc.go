// Package devstack stands in for the servers around Vitrine inside one process: Kafka, a Redis Cluster and S3, for
// `vitrine dev` and for tests that need no real server. Only Postgres is the real one, as a child process: nothing stands
// in for it.
//
// Each stand-in passes the same suite as the real thing (test/kafkatest, test/cachetest, test/blobtest), which is the
// only reason to trust it. Kafka's records and S3's objects are kept on disk and survive a restart; Redis' keys do not,
// because they are a cache. None of them is hardened: they believe any credentials, and are meant for the loopback
// interface.
//
// Each StartX listens before it returns, and each Close waits for what it started. A taken port is an error that names it.
package devstack
