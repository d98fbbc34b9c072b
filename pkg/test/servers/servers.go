package servers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// cleanupTimeout bounds the requests of a test's cleanup to a server.
const cleanupTimeout = 30 * time.Second

// shared are the servers of this test process. It is global because tests pass only a testing.TB.
//
//nolint:gochecknoglobals // see above
var shared = newEnvironment(os.Getenv)

// Main runs a package's tests, stops the servers that they started, and fails if a goroutine is left. Call it from
// TestMain:
//
//	func TestMain(m *testing.M) { servers.Main(m) }
//
// The options name goroutines that a library never ends; the caller gives the reason. The clock of Sarama's metrics is
// always ignored.
func Main(m *testing.M, opts ...goleak.Option) {
	os.Exit(runMain(m, shared, os.Stderr, opts))
}

// runMain is Main without the exit. It returns the exit code.
func runMain(m interface{ Run() int }, env *environment, stderr io.Writer, opts []goleak.Option) int {
	code := m.Run()
	if code != 0 {
		fmt.Fprint(stderr, env.crashed())
	}
	if err := env.stop(); err != nil {
		fmt.Fprintf(stderr, "servers: stop servers: %v\n", err)
		code = max(code, 1)
	}
	if code == 0 { // a failed test often leaves goroutines, which would hide its failure
		if err := goleak.Find(append(opts, lasting()...)...); err != nil {
			fmt.Fprintf(stderr, "servers: goroutines outlive the tests: %v\n", err)
			code = 1
		}
	}
	return code
}

// lasting returns the goroutines that a library starts once per process and cannot end.
func lasting() []goleak.Option {
	return []goleak.Option{
		// The clock behind sarama's metrics.
		goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"),
	}
}

// Postgres returns the URL, for pgx, of an empty schema that belongs to this test and is dropped at its end. The search path
// is the schema, then public with the extension pg_trgm. The user is a superuser.
//
// The test fails if a session still holds locks in the schema when it ends.
func Postgres(t testing.TB) string {
	t.Helper()
	dsn := need(t, shared.postgres)
	schema := "t_" + token()
	if err := execSQL(t.Context(), dsn, "CREATE SCHEMA "+schema); err != nil {
		t.Fatalf("servers: create schema: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		drop := "SET lock_timeout = '5s'; SET client_min_messages = warning; DROP SCHEMA " + schema + " CASCADE"
		if err := execSQL(ctx, dsn, drop); err != nil {
			t.Errorf("servers: drop schema (is a transaction still open?): %v", err)
		}
	})
	url, err := WithSchema(dsn, schema)
	if err != nil {
		t.Fatalf("servers: %v", err)
	}
	return url
}

// PostgresLocale returns the URL, for pgx, of a database of this test whose collation and character type are locale, such as
// "C". The encoding is UTF-8, and the schema public has the extension pg_trgm and nothing else. The database is dropped at
// the end of the test, with the sessions that are left.
func PostgresLocale(t testing.TB, locale string) string {
	t.Helper()
	dsn, name := need(t, shared.postgres), "d_"+token()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		if err := execSQL(ctx, dsn, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("servers: drop database: %v", err)
		}
	})
	url, err := withDatabase(dsn, name)
	if err != nil {
		t.Fatalf("servers: %v", err)
	}
	create := fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE '%s' LC_CTYPE '%[2]s'",
		name, locale)
	if err := execSQL(t.Context(), dsn, create); err != nil {
		t.Fatalf("servers: create database: %v", err)
	}
	if err := execSQL(t.Context(), url, createTrigrams); err != nil {
		t.Fatalf("servers: create extension: %v", err)
	}
	return url
}

// Redis returns the three nodes of a cluster, host:port, and a key prefix that no other test uses, such as "t_0b1c:". The
// keys need no cleanup: they end with the cluster.
func Redis(t testing.TB) (addrs []string, prefix string) {
	t.Helper()
	return strings.Split(need(t, shared.redis), ","), "t_" + token() + ":"
}

// Kafka returns the one broker, host:port, and a prefix of topics and groups that no other test uses, such as "t_0b1c.". The
// broker does not create topics on a write: the test creates them, with few partitions, because they last as long as the
// broker.
func Kafka(t testing.TB) (brokers []string, prefix string) {
	t.Helper()
	return []string{need(t, shared.kafka)}, "t_" + token() + "."
}

// S3 returns a bucket name that no other test uses, with the store's address and keys. The bucket does not exist yet. At the
// end of the test it is removed with all its objects, if the test has created it.
func S3(t testing.TB) Bucket {
	t.Helper()
	var b Bucket
	if err := json.Unmarshal([]byte(need(t, shared.s3)), &b); err != nil {
		t.Fatalf("servers: read %s: %v", envS3, err)
	}
	b.Bucket = "t-" + token()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		if err := removeBucket(ctx, b); err != nil {
			t.Errorf("servers: remove bucket: %v", err)
		}
	})
	return b
}

// need starts a shared server, if it does not run yet, and returns the value of its variable. It fails the test on an error.
func need(t testing.TB, start func() (string, error)) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a server; `make test` runs it")
	}
	value, err := start()
	if err != nil {
		t.Fatalf("servers: %v", err)
	}
	return value
}

// token returns a random name of 16 hexadecimal digits.
func token() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%x", b)
}
