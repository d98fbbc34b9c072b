package main

import (
	"testing"

	"github.com/IBM/sarama"
	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/foundation/event"
)

// counters are what an installation has done so far: transactions of its database, bytes of WAL, records in the topic of
// jobs.
type counters struct{ commits, rollbacks, wal, records float64 }

func (c counters) since(before counters) counters {
	return counters{
		c.commits - before.commits, c.rollbacks - before.rollbacks, c.wal - before.wal, c.records - before.records,
	}
}

func (f *flood) count(tb testing.TB) (c counters) {
	tb.Helper()
	must(tb, f.pool.QueryRow(tb.Context(), `SELECT xact_commit, xact_rollback, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')
		FROM pg_stat_database WHERE datname = current_database()`).Scan(&c.commits, &c.rollbacks, &c.wal))
	topic := f.settings["KAFKA_TOPIC_PREFIX"] + event.TopicRequested
	partitions, err := f.kafka.Partitions(topic)
	must(tb, err)
	for _, partition := range partitions {
		end, err := f.kafka.GetOffset(topic, partition, sarama.OffsetNewest)
		must(tb, err)
		c.records += float64(end)
	}
	return c
}

// table is the size and the history of a table.
type table struct {
	Name                  string
	HeapMB, IndexesMB     float64
	Live, Dead            float64 // tuples
	Updates, HOT, Deletes float64
}

// tables returns the tables of images and of jobs, by name.
func (f *flood) tables(tb testing.TB) map[string]table {
	tb.Helper()
	rows, err := f.pool.Query(tb.Context(), `SELECT relname::text, pg_relation_size(relid) / 1e6::float8,
			pg_indexes_size(relid) / 1e6::float8, n_live_tup::float8, n_dead_tup::float8, n_tup_upd::float8,
			n_tup_hot_upd::float8, n_tup_del::float8
		FROM pg_stat_user_tables WHERE schemaname = current_schema() AND relname IN ('images', 'image_jobs')`)
	must(tb, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
	must(tb, err)
	tables := map[string]table{}
	for _, t := range all {
		tables[t.Name] = t
	}
	return tables
}
