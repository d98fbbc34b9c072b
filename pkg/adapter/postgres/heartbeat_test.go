package postgres_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/port"
)

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	t.Run("listed_by_role_and_instance", testHeartbeatsListed)
	t.Run("removed_instance_is_gone", testHeartbeatRemoved)
	t.Run("silent_instance_is_ignored_and_later_purged", testHeartbeatsPurged)
	t.Run("concurrent_instances_purge", testHeartbeatsPurgedConcurrently)
	t.Run("database_down_is_unavailable", testHeartbeatsUnavailable)
}

// heartbeatStore returns a store and the DSN of its schema.
func heartbeatStore(t *testing.T) (store *postgres.Store, dsn string) {
	t.Helper()
	dsn = migrated(t)
	return postgres.NewStore(open(t, config(dsn), prometheus.NewRegistry())), dsn
}

func record(t *testing.T, store *postgres.Store, r pipeline.Report) {
	t.Helper()
	if err := store.RecordHeartbeat(t.Context(), r); err != nil {
		t.Fatalf("record: %v", err)
	}
}

// heartbeats returns the heartbeats without their ages, after it has checked that these are between zero and a minute.
func heartbeats(t *testing.T, store *postgres.Store, maxAge time.Duration) []pipeline.Report {
	t.Helper()
	all, err := store.Heartbeats(t.Context(), maxAge)
	if err != nil {
		t.Fatalf("heartbeats: %v", err)
	}
	for i, r := range all {
		if r.Age < 0 || r.Age > time.Minute {
			t.Errorf("%s: silent for %v", r.Instance, r.Age)
		}
		all[i].Age = 0
	}
	return all
}

func testHeartbeatsListed(t *testing.T) {
	t.Parallel()
	store, _ := heartbeatStore(t)
	if got := heartbeats(t, store, time.Minute); len(got) != 0 {
		t.Errorf("got %v before the first heartbeat", got)
	}
	record(t, store, pipeline.Report{Role: "worker", Instance: "b", Revision: "2"})
	record(t, store, pipeline.Report{Role: "worker", Instance: "a", Revision: "1"})
	record(t, store, pipeline.Report{Role: "api", Instance: "b", Revision: "2"})
	record(t, store, pipeline.Report{Role: "worker", Instance: "a", Revision: "2", Error: "bad", InForce: time.Hour})
	got := heartbeats(t, store, time.Minute)
	if len(got) != 3 {
		t.Fatalf("got %v, want three instances", got)
	}
	if in := got[1].InForce; in < time.Hour || in > time.Hour+time.Minute {
		t.Errorf("in force for %v, want an hour", in)
	}
	for i := range got {
		got[i].InForce = 0
	}
	want := []pipeline.Report{
		{Role: "api", Instance: "b", Revision: "2"},
		{Role: "worker", Instance: "a", Revision: "2", Error: "bad"},
		{Role: "worker", Instance: "b", Revision: "2"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func testHeartbeatRemoved(t *testing.T) {
	t.Parallel()
	store, _ := heartbeatStore(t)
	record(t, store, pipeline.Report{Role: "worker", Instance: "a"})
	record(t, store, pipeline.Report{Role: "api", Instance: "a"})
	for range 2 { // safe to repeat
		if err := store.RemoveHeartbeat(t.Context(), "worker", "a"); err != nil {
			t.Fatalf("remove: %v", err)
		}
	}
	if got := heartbeats(t, store, time.Minute); len(got) != 1 || got[0].Role != "api" {
		t.Errorf("got %v, want only the api", got)
	}
}

func testHeartbeatsPurged(t *testing.T) {
	t.Parallel()
	store, dsn := heartbeatStore(t)
	conn := connect(t, dsn)
	age := func(instance, by string) {
		record(t, store, pipeline.Report{Role: "worker", Instance: instance})
		run(t, conn, "UPDATE heartbeats SET seen_at = now() - $2::text::interval WHERE instance = $1", instance, by)
	}
	age("silent", "61 seconds")
	age("killed", "61 minutes")
	age("self", "2 hours")
	record(t, store, pipeline.Report{Role: "worker", Instance: "self"}) // it is running, and does not purge its own row
	if got := heartbeats(t, store, time.Minute); len(got) != 1 || got[0].Instance != "self" {
		t.Errorf("got %v, want only the instance with a recent heartbeat", got)
	}
	const all = "SELECT string_agg(instance, ' ' ORDER BY instance) FROM heartbeats"
	if got := scalar[string](t, conn, all); got != "self silent" {
		t.Errorf("got rows of %s, want the row of the killed one purged", got)
	}
}

func testHeartbeatsPurgedConcurrently(t *testing.T) {
	t.Parallel()
	store, dsn := heartbeatStore(t)
	conn := connect(t, dsn)
	run(t, conn, `INSERT INTO heartbeats (role, instance, revision, error, loaded_at, seen_at)
		SELECT 'worker', i::text, '', '', now(), now() - interval '2 hours' FROM generate_series(1, 200) i`)
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			for range 10 {
				for _, r := range []pipeline.Report{
					{Role: "api", Instance: string(rune('a' + i))},
					{Role: "worker", Instance: string(rune('1' + i))}, // has an old row that others may purge
				} {
					if err := store.RecordHeartbeat(t.Context(), r); err != nil {
						t.Errorf("record: %v", err)
					}
				}
			}
		})
	}
	all.Wait()
	if got := scalar[int64](t, conn, "SELECT count(*) FROM heartbeats"); got != 12 {
		t.Errorf("got %d rows, want those of the twelve instances", got)
	}
}

func testHeartbeatsUnavailable(t *testing.T) {
	t.Parallel()
	dsn := "postgres://vitrine@" + port.Addr(t) + "/vitrine?sslmode=disable"
	store := postgres.NewStore(open(t, config(dsn), prometheus.NewRegistry()))
	_, err := store.Heartbeats(t.Context(), time.Minute)
	for name, err := range map[string]error{
		"record": store.RecordHeartbeat(t.Context(), pipeline.Report{}),
		"remove": store.RemoveHeartbeat(t.Context(), "api", "a"),
		"list":   err,
	} {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: got %v, want unavailable", name, err)
		}
	}
}
