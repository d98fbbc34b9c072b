package postgres

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// activity watches how old the oldest transaction of the database is, whoever's it is. While one is open, nothing that has
// died since can be vacuumed: every table grows, and the outbox, whose rows live for milliseconds, before all others.
type activity struct {
	db     *DB
	oldest prometheus.Gauge
	seen   map[transaction]time.Time // when a hidden one was first seen
}

// transaction names an open transaction of which the server tells nothing else.
type transaction struct {
	Process int
	Held    string // its own or, while it has none, the oldest that its snapshot still sees
}

func newActivity(db *DB, reg prometheus.Registerer) *activity {
	a := &activity{db: db, oldest: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "vitrine_postgres_oldest_transaction_age_seconds",
		Help: "How long the oldest transaction of the database, whoever's it is, has been seen to be open; 0: none is.",
	})}
	reg.MustRegister(a.oldest)
	return a
}

// selectTransactions needs no rights. Of other users' sessions the server then shows process and transaction ids, and no
// time; members of pg_read_all_stats (pg_monitor) see all. A session that is idle in a transaction and holds neither an id
// nor a snapshot keeps nothing, but its age is shown to those who may see it. Standbys and replication slots are not
// sessions of a database; they have metrics of their own.
// https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-STATS-VIEWS
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

// transactionRow is an open transaction. Age is in microseconds, nil for one that is hidden.
type transactionRow struct {
	Process int
	Held    *string // what it keeps from being vacuumed, a transaction's id
	Age     *int64
}

// measure writes the metric. It is not for several goroutines at a time.
func (a *activity) measure(ctx context.Context) error {
	rows, err := query[transactionRow](ctx, a.db, "activity", selectTransactions)
	if err != nil {
		return err
	}
	a.oldest.Set(a.age(rows, time.Now()).Seconds())
	return nil
}

// age returns the oldest's. A hidden one is as old as it has been seen for, so this process has to live longer than it does.
func (a *activity) age(rows []transactionRow, now time.Time) time.Duration {
	var oldest time.Duration
	hidden := map[transaction]time.Time{}
	for _, r := range rows {
		switch {
		case r.Age != nil:
			oldest = max(oldest, time.Duration(*r.Age)*time.Microsecond)
		case r.Held != nil:
			name := transaction{r.Process, *r.Held}
			first, known := a.seen[name]
			if !known {
				first = now
			}
			hidden[name] = first
			oldest = max(oldest, now.Sub(first))
		}
	}
	a.seen = hidden
	return oldest
}
