package postgres

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// activity measures the age of the oldest open transaction in the database, of any user. While it is open, VACUUM cannot
// remove the tuples that became dead since it began. Every table then grows, and the outbox grows fastest, because its
// rows exist only for milliseconds.
type activity struct {
	db     *DB
	oldest prometheus.Gauge
	seen   map[transaction]time.Time // when each hidden transaction was first seen
}

// transaction identifies an open transaction whose start time the server hides.
type transaction struct {
	Process int
	Held    string // its transaction id or, if it has none, the oldest id that its snapshot needs
}

func newActivity(db *DB, reg prometheus.Registerer) *activity {
	a := &activity{db: db, oldest: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "vitrine_postgres_oldest_transaction_age_seconds",
		Help: "Age of the oldest open transaction in the database, of any user; 0: none is open.",
	})}
	reg.MustRegister(a.oldest)
	return a
}

// selectTransactions needs no privileges. Without them, the server shows the process and transaction ids of other users'
// sessions, but not their times; members of pg_read_all_stats (pg_monitor) see everything. A session that is idle in a
// transaction and has neither an id nor a snapshot does not prevent a vacuum, but is counted if its age is visible.
// Standbys and replication slots are not included, because they are not sessions of a database; they have metrics of
// their own. https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-STATS-VIEWS
const selectTransactions = `
SELECT pid AS process, coalesce(backend_xid, backend_xmin)::text AS held,
    (extract(epoch FROM clock_timestamp() - xact_start) * 1000000)::bigint AS age
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND coalesce(backend_type, 'client backend') = 'client backend'
    AND (xact_start IS NOT NULL OR backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)
UNION ALL
SELECT 0, transaction::text, (extract(epoch FROM clock_timestamp() - prepared) * 1000000)::bigint
FROM pg_prepared_xacts WHERE database = current_database()`

// transactionRow is an open transaction. Age is in microseconds, nil if it is hidden.
type transactionRow struct {
	Process int
	Held    *string // VACUUM cannot remove tuples that became dead after this transaction id
	Age     *int64
}

// measure sets the metric. It is not safe for concurrent use.
func (a *activity) measure(ctx context.Context) error {
	rows, err := query[transactionRow](ctx, a.db, "activity", selectTransactions)
	if err != nil {
		return err
	}
	a.oldest.Set(a.age(rows, time.Now()).Seconds())
	return nil
}

// age returns the age of the oldest transaction. The age of a hidden one is counted from when this process first saw it.
func (a *activity) age(rows []transactionRow, now time.Time) time.Duration {
	var oldest time.Duration
	hidden := map[transaction]time.Time{}
	for _, r := range rows {
		switch {
		case r.Age != nil:
			oldest = max(oldest, time.Duration(*r.Age)*time.Microsecond)
		case r.Held != nil:
			key := transaction{r.Process, *r.Held}
			first, known := a.seen[key]
			if !known {
				first = now
			}
			hidden[key] = first
			oldest = max(oldest, now.Sub(first))
		}
	}
	a.seen = hidden
	return oldest
}
