package postgres_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

const insertMessage = `
INSERT INTO outbox (event_id, topic, key, type, payload, headers, tries)
VALUES (gen_random_uuid(), 't', '1', 'x', '{}', '{"event-id": "e1", "event-type": "x", "event-version": "1"}', $1)`

func TestOutbox(t *testing.T) {
	t.Parallel()
	t.Run("pause_doubles_up_to_five_minutes", testRefusedPause)
	t.Run("last_refusal_parks_and_logs", testLastRefusal)
	t.Run("invalid_row_is_refused_alone", testInvalidRow)
	t.Run("lost_connection_keeps_messages", testLostConnection)
	t.Run("failed_statement_ends_batch", testFailedStatement)
	t.Run("deadline_ends_batch", testBatchDeadline)
	t.Run("deleted_rows_are_not_read_by_later_batches", testDeletedRows)
	t.Run("depth_scans_no_table", testDepthIsBounded)
	t.Run("late_commit_before_resume_point_is_found", testLateCommit)
}

// observedOutbox returns an outbox, a bare connection to its schema, and its log.
func observedOutbox(t *testing.T) (*postgres.Outbox, *pgx.Conn, *observer.ObservedLogs) {
	t.Helper()
	dsn := migrated(t)
	core, logs := observer.New(zap.InfoLevel)
	db, err := postgres.Open(config(dsn), zap.New(core), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return outboxOf(t, db), connect(t, dsn), logs
}

func refuseAll(_ context.Context, messages []event.Message) []error {
	results := make([]error, len(messages))
	for i := range results {
		results[i] = errors.New("no")
	}
	return results
}

func testRefusedPause(t *testing.T) {
	t.Parallel()
	outbox, conn, _ := observedOutbox(t)
	for _, tries := range []int{0, 1, 5, 8, 9, 18} {
		run(t, conn, "DELETE FROM outbox")
		run(t, conn, insertMessage, tries)
		drained, err := outbox.PublishBatch(t.Context(), 10, refuseAll)
		if want := (relay.BatchResult{Claimed: 1, Refused: 1}); err != nil || drained != want {
			t.Fatalf("got %+v and %v, want %+v", drained, err, want)
		}
		pause := scalar[float64](t, conn, "SELECT extract(epoch FROM available_at - clock_timestamp())::float8 FROM outbox")
		longest := math.Min(300, math.Pow(2, float64(tries)))
		if pause > longest || pause < longest/2-1 {
			t.Errorf("after %d tries: got a pause of %.1fs, want %.1f to %.1f", tries, pause, longest/2, longest)
		}
		if got := scalar[int](t, conn, "SELECT tries FROM outbox"); got != tries+1 {
			t.Errorf("got %d tries, want %d", got, tries+1)
		}
	}
}

func testLastRefusal(t *testing.T) {
	t.Parallel()
	outbox, conn, logs := observedOutbox(t)
	run(t, conn, insertMessage, 19)
	run(t, conn, insertMessage, 0)
	drained, err := outbox.PublishBatch(t.Context(), 10, refuseAll)
	if want := (relay.BatchResult{Claimed: 2, Refused: 2, Parked: 1}); err != nil || drained != want {
		t.Errorf("got %+v and %v, want %+v", drained, err, want)
	}
	entries := logs.FilterMessage("message parked").All()
	if len(entries) != 1 || entries[0].ContextMap()["event_id"] != "e1" {
		t.Errorf("got %v, want one log entry with e1", entries)
	}
	if got := scalar[int](t, conn, "SELECT tries FROM outbox WHERE parked_at IS NOT NULL"); got != 20 {
		t.Errorf("got %d tries, want 20", got)
	}
}

func testInvalidRow(t *testing.T) {
	t.Parallel()
	outbox, conn, _ := observedOutbox(t)
	run(t, conn, insertMessage, 0)
	run(t, conn, "UPDATE outbox SET headers = '{}'")
	none := func(context.Context, []event.Message) []error {
		t.Error("publish was called with nothing")
		return nil
	}
	if drained, err := outbox.PublishBatch(t.Context(), 10, none); err != nil || drained.Refused != 1 {
		t.Errorf("got %+v and %v, want one refused", drained, err)
	}
	run(t, conn, "UPDATE outbox SET available_at = now()")
	run(t, conn, insertMessage, 0)
	drained, err := outbox.PublishBatch(t.Context(), 10, func(_ context.Context, messages []event.Message) []error {
		return make([]error, len(messages))
	})
	if want := (relay.BatchResult{Claimed: 2, Published: 1, Refused: 1}); err != nil || drained != want {
		t.Errorf("got %+v and %v, want %+v", drained, err, want)
	}
}

func testLostConnection(t *testing.T) {
	t.Parallel()
	outbox, conn, _ := observedOutbox(t)
	run(t, conn, insertMessage, 0)
	drained, err := outbox.PublishBatch(t.Context(), 10, func(_ context.Context, messages []event.Message) []error {
		// The session of the batch is the only one that has locked rows of this outbox.
		run(t, conn, `SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE l.relation = 'outbox'::regclass
			AND l.mode = 'RowShareLock' AND l.pid <> pg_backend_pid()`)
		return make([]error, len(messages))
	})
	if !fault.Is(err, fault.Unavailable) || drained.Published != 0 {
		t.Errorf("got %+v and %v, want unavailable and nothing published", drained, err)
	}
	if d, err := outbox.Depth(t.Context()); err != nil || d.Due != 1 {
		t.Errorf("got %+v and %v, want the message still due", d, err)
	}
}

func testFailedStatement(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"claim":  "ALTER TABLE outbox RENAME COLUMN topic TO subject",
		"delete": "CREATE RULE no AS ON DELETE TO outbox DO INSTEAD SELECT 1/0",
		"refuse": "ALTER TABLE outbox ADD CHECK (tries < 1)",
	} {
		outbox, conn, _ := observedOutbox(t)
		run(t, conn, insertMessage, 0)
		run(t, conn, statement)
		result := errors.New("no")
		if name == "delete" {
			result = nil
		}
		_, err := outbox.PublishBatch(t.Context(), 10, func(context.Context, []event.Message) []error { return []error{result} })
		if !fault.Is(err, fault.Internal) {
			t.Errorf("%s: got %v, want an internal error", name, err)
		}
	}
}

func testBatchDeadline(t *testing.T) {
	t.Parallel()
	outbox, conn, _ := observedOutbox(t)
	run(t, conn, insertMessage, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := outbox.PublishBatch(ctx, 10, func(ctx context.Context, messages []event.Message) []error {
		<-ctx.Done()
		return make([]error, len(messages))
	})
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want unavailable", err)
	}
	if d, err := outbox.Depth(t.Context()); err != nil || d.Due != 1 {
		t.Errorf("got %+v and %v, want the message still due", d, err)
	}
}

func publishAll(_ context.Context, messages []event.Message) []error {
	return make([]error, len(messages))
}

const insertMessages = `
INSERT INTO outbox (event_id, topic, key, type, payload, headers, available_at)
SELECT gen_random_uuid(), 't', n::text, 'x', '{}', '{"event-id": "e1", "event-type": "x", "event-version": "1"}',
    now() - interval '1 minute' + n * interval '1 microsecond' FROM generate_series(1, $1::int) n`

// Depth reads at most 10,000 entries of each index, and never the table.
func testDepthIsBounded(t *testing.T) {
	t.Parallel()
	const messages = 10_500
	outbox, conn, _ := observedOutbox(t)
	run(t, conn, insertMessages, messages)
	run(t, conn, "UPDATE outbox SET parked_at = now() WHERE id % 1000 = 0")
	run(t, conn, "ANALYZE outbox")
	depth, err := outbox.Depth(t.Context())
	if err != nil || depth.Due != 10_000 || depth.Parked != 10 || depth.Delayed != 0 {
		t.Errorf("got %+v and %v, want the bound of 10000 due and 10 parked", depth, err)
	}
	rows, err := conn.Query(t.Context(), "EXPLAIN "+postgres.SelectDepth, pgx.QueryExecModeSimpleProtocol, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(plan, "\n"); strings.Contains(text, "Seq Scan") {
		t.Errorf("the plan scans the table:\n%s", text)
	}
}

// Deleted rows stay in the index while an older transaction is open. Batches that start at the start of the queue would
// read all of them.
func testDeletedRows(t *testing.T) {
	t.Parallel()
	const messages, batch = 2000, 20
	outbox, conn, _ := observedOutbox(t)
	run(t, conn, insertMessages, messages)
	run(t, conn, "VACUUM ANALYZE outbox")
	end := holdOpen(t, conn.Config().ConnString())
	defer end()
	for left := messages; left > 0; left -= batch {
		drained, err := outbox.PublishBatch(t.Context(), batch, publishAll)
		if err != nil || drained.Published != batch {
			t.Fatalf("got %+v and %v with %d left, want %d published", drained, err, left, batch)
		}
	}
	if err := outbox.Close(); err != nil { // a session reports its statistics at its end at the latest
		t.Fatal(err)
	}
	read := func() int64 {
		run(t, conn, "SELECT pg_stat_clear_snapshot()")
		return scalar[int64](t, conn, `SELECT idx_tup_read FROM pg_stat_user_indexes
			WHERE indexrelid = 'outbox_due'::regclass`)
	}
	deadline, tick := time.After(time.Minute), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for read() < messages {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("got %d entries read, want at least the %d messages: the index may not be used", read(), messages)
		}
	}
	const quadratic = messages * (messages/batch + 1) / 2
	if got := read(); got > quadratic/2 {
		t.Errorf("got %d index entries read for %d messages, want far from %d", got, messages, quadratic)
	}
}

func testLateCommit(t *testing.T) {
	t.Parallel()
	outbox, conn, _ := observedOutbox(t)
	run(t, conn, insertMessages, 5)
	if drained, err := outbox.PublishBatch(t.Context(), 2, publishAll); err != nil || drained.Published != 2 {
		t.Fatalf("got %+v and %v", drained, err)
	}
	run(t, conn, "UPDATE outbox SET available_at = now() - interval '1 hour' WHERE key = '5'")
	published := 2
	for range 2 { // the first batch, which is not full, may start behind it
		drained, err := outbox.PublishBatch(t.Context(), 10, publishAll)
		if err != nil {
			t.Fatal(err)
		}
		published += drained.Published
	}
	if published != 5 {
		t.Errorf("got %d published, want all 5", published)
	}
}
