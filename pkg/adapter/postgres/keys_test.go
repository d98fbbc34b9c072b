package postgres_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/shopspring/decimal"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/fault"
)

func TestRotateKeys(t *testing.T) {
	t.Parallel()
	t.Run("days_ahead_are_created_once", testKeyDaysCreated)
	t.Run("old_days_are_dropped", testKeyDaysDropped)
	t.Run("interrupted_detachment_is_finished", testKeyDayPending)
	t.Run("one_process_at_a_time", testKeyDaysLocked)
}

func TestKeyLifetime(t *testing.T) {
	t.Parallel()
	t.Run("key_of_yesterday_is_replayed", testKeyOfYesterday)
	t.Run("key_older_than_a_day_is_free", testOldKey)
	t.Run("no_partition_is_unavailable", testNoKeyDay)
}

// keyTables returns the days of the partitions of idempotency_keys, relative to today.
const keyTables = `
SELECT coalesce(string_agg((to_date(right(c.relname, 8), 'YYYYMMDD') - (now() AT TIME ZONE 'UTC')::date)::text, ' '
    ORDER BY c.relname), '')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relkind = 'r' AND c.relname LIKE 'idempotency\_keys\_%'`

// keyStore returns a store on a new schema, and a bare connection to it.
func keyStore(t *testing.T) (*postgres.Store, *pgx.Conn, postgres.Config) {
	t.Helper()
	cfg := config(migrated(t))
	conn := connect(t, cfg.DSN)
	seed(t, conn)
	return postgres.NewStore(open(t, cfg, prometheus.NewRegistry())), conn, cfg
}

func rotate(t *testing.T, store *postgres.Store, want maintenance.KeyRotation) {
	t.Helper()
	if got, err := store.RotateKeys(t.Context()); err != nil || got != want {
		t.Errorf("rotate: got %+v, %v, want %+v", got, err, want)
	}
}

// addDay adds the partition of a day relative to today.
func addDay(t *testing.T, conn *pgx.Conn, n int) {
	t.Helper()
	day := scalar[time.Time](t, conn, `SELECT (now() AT TIME ZONE 'UTC')::date + $1::int`, n)
	from, to := day.Format(time.DateOnly), day.AddDate(0, 0, 1).Format(time.DateOnly)
	run(t, conn, `CREATE TABLE idempotency_keys_`+day.Format("20060102")+
		` PARTITION OF idempotency_keys FOR VALUES FROM ('`+from+`') TO ('`+to+`')`)
}

func testKeyDaysCreated(t *testing.T) {
	t.Parallel()
	store, conn, _ := keyStore(t)
	rotate(t, store, maintenance.KeyRotation{DaysAhead: 7})
	for _, n := range []string{"0", "3", "7"} {
		run(t, conn, `DO $$ BEGIN EXECUTE 'DROP TABLE idempotency_keys_' ||
			to_char((now() AT TIME ZONE 'UTC')::date + `+n+`, 'YYYYMMDD'); END $$`)
	}
	rotate(t, store, maintenance.KeyRotation{DaysAhead: 7})
	if got := scalar[string](t, conn, keyTables); got != "-1 0 1 2 3 4 5 6 7" {
		t.Errorf("got the days %s, want -1 to 7", got)
	}
	insertOnce(t, store, "a", func() {}) // today's new partition takes keys
	run(t, conn, `INSERT INTO idempotency_keys (principal, key, day, fingerprint, response)
		SELECT '1', 'b', (now() AT TIME ZONE 'UTC')::date + n, '', '' FROM generate_series(-1, 7) n`)
}

func testKeyDaysDropped(t *testing.T) {
	t.Parallel()
	store, conn, _ := keyStore(t)
	for _, n := range []int{-2, -3, -40} {
		addDay(t, conn, n)
	}
	run(t, conn, `CREATE TABLE idempotency_keys_20200101 (LIKE idempotency_keys)`) // detached, not dropped
	run(t, conn, `INSERT INTO idempotency_keys (principal, key, day, fingerprint, response)
		SELECT '1', 'b', (now() AT TIME ZONE 'UTC')::date + n, '', '' FROM unnest('{-1,-2,-3,-40}'::int[]) n`)
	rotate(t, store, maintenance.KeyRotation{DaysAhead: 7, Dropped: 4})
	if got := scalar[string](t, conn, keyTables); !strings.HasPrefix(got, "-1 0 1") {
		t.Errorf("got the days %s, want none before -1", got)
	}
	if got := scalar[int](t, conn, `SELECT count(*) FROM idempotency_keys`); got != 1 {
		t.Errorf("got %d keys left, want yesterday's", got)
	}
	rotate(t, store, maintenance.KeyRotation{DaysAhead: 7})
}

// A detachment waits for transactions that use the table. If it is interrupted, the next rotation finishes it.
func testKeyDayPending(t *testing.T) {
	t.Parallel()
	store, conn, cfg := keyStore(t)
	addDay(t, conn, -5)
	reader := connect(t, cfg.DSN)
	run(t, reader, `BEGIN`)
	run(t, reader, `SELECT FROM idempotency_keys`)
	var got maintenance.KeyRotation
	ended := make(chan error, 1)
	go func() {
		var err error
		got, err = store.RotateKeys(t.Context())
		ended <- err
	}()
	cancelDetachment(t, conn, reader.PgConn().PID())
	if err := <-ended; !fault.Is(err, fault.Unavailable) || got.DaysAhead != 7 {
		t.Errorf("got %+v, %v, want Unavailable and seven days ahead", got, err)
	}
	insertOnce(t, store, "a", func() {}) // the table is usable meanwhile
	run(t, reader, `COMMIT`)
	rotate(t, store, maintenance.KeyRotation{DaysAhead: 7, Dropped: 1})
}

// cancelDetachment cancels the statement that waits for the connection with the process id reader, once a partition is
// marked as being detached.
func cancelDetachment(t *testing.T, conn *pgx.Conn, reader uint32) {
	t.Helper()
	const cancelWaiting = `
SELECT count(*) FROM (
    SELECT pg_cancel_backend(pid) FROM pg_locks
    WHERE NOT granted AND $1::int = ANY (pg_blocking_pids(pid))
        AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = 'idempotency_keys'::regclass AND inhdetachpending)) c`
	awaitNil(t, "the detachment waits", func() error {
		if scalar[int](t, conn, cancelWaiting, reader) == 0 {
			return errors.New("nothing waits for the reader")
		}
		return nil
	})
}

func testKeyDaysLocked(t *testing.T) {
	t.Parallel()
	store, conn, _ := keyStore(t)
	addDay(t, conn, -5)
	const lock = `(hashtextextended(current_schema() || ' partitions of idempotency_keys', 2))`
	run(t, conn, `SELECT pg_advisory_lock`+lock)
	rotate(t, store, maintenance.KeyRotation{DaysAhead: 7})
	run(t, conn, `SELECT pg_advisory_unlock`+lock)
	rotate(t, store, maintenance.KeyRotation{DaysAhead: 7, Dropped: 1})
}

// replayed reports whether a request with this key is answered with a saved response.
func replayed(t *testing.T, store *postgres.Store, key string) bool {
	t.Helper()
	_, _, again, err := store.InsertOnce(t.Context(), catalog.IdempotencyKey{Principal: "1", Key: key, Fingerprint: "print"},
		catalog.Product{UserID: 1, Name: "Lamp", Price: decimal.New(1250, -2), Version: 1, Revision: 1},
		func(catalog.Product) []catalog.Outgoing { return nil },
		func(catalog.Product) (catalog.SavedResponse, error) { return catalog.SavedResponse("new"), nil })
	if err != nil {
		t.Errorf("key %s: %v", key, err)
	}
	return again
}

// age moves a key to a time before now, and to the partition of that time.
func age(t *testing.T, conn *pgx.Conn, key, at string) {
	t.Helper()
	run(t, conn, `UPDATE idempotency_keys SET created_at = `+at+`, day = ((`+at+`) AT TIME ZONE 'UTC')::date
		WHERE key = $1`, key)
}

func testKeyOfYesterday(t *testing.T) {
	t.Parallel()
	store, conn, _ := keyStore(t)
	insertOnce(t, store, "a", func() {})
	age(t, conn, "a", `(date_trunc('day', now() AT TIME ZONE 'UTC') - interval '1 microsecond') AT TIME ZONE 'UTC'`)
	if !replayed(t, store, "a") {
		t.Error("the key was carried out again after midnight")
	}
	if got := scalar[int](t, conn, `SELECT count(*) FROM idempotency_keys WHERE key = 'a'`); got != 1 {
		t.Errorf("got %d rows, want 1", got)
	}
}

func testOldKey(t *testing.T) {
	t.Parallel()
	store, conn, _ := keyStore(t)
	addDay(t, conn, -2)
	insertOnce(t, store, "a", func() {})
	age(t, conn, "a", `now() - interval '24 hours 1 second'`)
	if replayed(t, store, "a") {
		t.Error("a key older than 24 hours was replayed")
	}
	if !replayed(t, store, "a") {
		t.Error("the new key was not replayed")
	}
}

func testNoKeyDay(t *testing.T) {
	t.Parallel()
	store, conn, _ := keyStore(t)
	run(t, conn, `DO $$ BEGIN EXECUTE 'DROP TABLE idempotency_keys_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD'); END $$`)
	before := scalar[int](t, conn, `SELECT count(*) FROM products`)
	_, _, _, err := store.InsertOnce(t.Context(), catalog.IdempotencyKey{Principal: "1", Key: "a", Fingerprint: "print"},
		catalog.Product{UserID: 1, Name: "Lamp", Version: 1, Revision: 1},
		func(catalog.Product) []catalog.Outgoing { return nil },
		func(catalog.Product) (catalog.SavedResponse, error) { return catalog.SavedResponse("new"), nil })
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want Unavailable", err)
	}
	if got := scalar[int](t, conn, `SELECT count(*) FROM products`); got != before {
		t.Errorf("got %d products, want %d", got, before)
	}
}
