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

// cleanupPatience bounds how long a test's cleanup may wait for a server.
const cleanupPatience = 30 * time.Second

// shared is what this test process has started. A test has nothing but its testing.TB to reach it by, so it is global.
//
//nolint:gochecknoglobals // see above
var shared = newEnvironment(os.Getenv)

// Main runs a package's tests, then stops the servers they started and fails if they left a goroutine behind. Call it from
// TestMain:
//
//	func TestMain(m *testing.M) { servers.Main(m) }
//
// The options name goroutines that a library keeps for good; each should say why. Sarama's metrics clock is known.
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
	if code == 0 { // a failed test rarely cleans up, and its own failure is the news
		if err := goleak.Find(append(opts, lasting()...)...); err != nil {
			fmt.Fprintf(stderr, "servers: goroutines outlive the tests: %v\n", err)
			code = 1
		}
	}
	return code
}

// lasting names goroutines that a library starts once per process and offers no way to end.
func lasting() []goleak.Option {
	return []goleak.Option{
		// The clock behind sarama's metrics.
		goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"),
	}
}

// Postgres returns the URL, for pgx, of an empty schema that is this test's alone and is dropped at its end. The schema
// comes first on the search path and public second, where the extension pg_trgm is. The user is a superuser.
//
// A session that still holds locks in the schema when the test ends fails the test.
func Postgres(t testing.TB) string {
	t.Helper()
	dsn := need(t, shared.postgres)
	schema := "t_" + token()
	if err := execSQL(t.Context(), dsn, "CREATE SCHEMA "+schema); err != nil {
		t.Fatalf("servers: create schema: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupPatience)
		defer cancel()
		drop := "SET lock_timeout = '5s'; SET client_min_messages = warning; DROP SCHEMA " + schema + " CASCADE"
		if err := execSQL(ctx, dsn, drop); err != nil {
			t.Errorf("servers: drop schema (is a transaction still open?): %v", err)
		}
	})
	private, err := withSearchPath(dsn, schema)
	if err != nil {
		t.Fatalf("servers: %v", err)
	}
	return private
}

// Redis returns the three nodes of a cluster and a prefix that no other test uses for its keys, such as "t_0b1c:". What is
// left under it is nobody's concern: it ends with the cluster.
func Redis(t testing.TB) (addrs []string, prefix string) {
	t.Helper()
	return strings.Split(need(t, shared.redis), ","), "t_" + token() + ":"
}

// Kafka returns the one broker and a prefix that no other test uses for its topics and groups, such as "t_0b1c.". Topics are
// not made by writing to them; the test makes them, small, since they last as long as the broker.
func Kafka(t testing.TB) (brokers []string, prefix string) {
	t.Helper()
	return []string{need(t, shared.kafka)}, "t_" + token() + "."
}

// S3 returns the name of a bucket that no other test uses and what opens it. The bucket does not exist yet; if the test
// makes it, it is removed with everything in it at the test's end.
func S3(t testing.TB) Bucket {
	t.Helper()
	var b Bucket
	if err := json.Unmarshal([]byte(need(t, shared.s3)), &b); err != nil {
		t.Fatalf("servers: read %s: %v", envS3, err)
	}
	b.Bucket = "t-" + token()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupPatience)
		defer cancel()
		if err := removeBucket(ctx, b); err != nil {
			t.Errorf("servers: remove bucket: %v", err)
		}
	})
	return b
}

// need returns what a lazily started server is known by. It fails the test if the server cannot be had.
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

// token is a random name of lower-case letters and digits that no other test has.
func token() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%x", b)
}
