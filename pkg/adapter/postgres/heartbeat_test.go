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

// beats is a store, and what an instance says.
func beats(t *testing.T) (store *postgres.Store, dsn string) {
	t.Helper()
	dsn = migrated(t)
	return postgres.NewStore(open(t, config(dsn), prometheus.NewRegistry())), dsn
}

func beat(t *testing.T, store *postgres.Store, r pipeline.Report) {
	t.Helper()
	if err := store.RecordHeartbeat(t.Context(), r); err != nil {
		t.Fatalf("beat: %v", err)
	}
}

// reports returns what is said, without its ages, which are checked to be above zero and below a minute.
func reports(t *testing.T, store *postgres.Store, since time.Duration) []pipeline.Report {
	t.Helper()
	all, err := store.Heartbeats(t.Context(), since)
	if err != nil {
		t.Fatalf("reports: %v", err)
	}
	for i, r := range all {
		if r.Silent < 0 || r.Silent > time.Minute {
			t.Errorf("%s: silent for %v", r.Instance, r.Silent)
		}
		all[i].Silent = 0
	}
	return all
}

func TestHeartbeatsAreListedByRoleAndName(t *testing.T) {
	t.Parallel()
	store, _ := beats(t)
	if got := reports(t, store, time.Minute); len(got) != 0 {
		t.Errorf("got %v before anybody said anything", got)
	}
	beat(t, store, pipeline.Report{Role: "worker", Instance: "b", Revision: "2"})
	beat(t, store, pipeline.Report{Role: "worker", Instance: "a", Revision: "1"})
	beat(t, store, pipeline.Report{Role: "api", Instance: "b", Revision: "2"})
	beat(t, store, pipeline.Report{Role: "worker", Instance: "a", Revision: "2", Error: "bad", InForce: time.Hour})
	got := reports(t, store, time.Minute)
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

func TestAnInstanceThatLeavesIsGoneAtOnce(t *testing.T) {
	t.Parallel()
	store, _ := beats(t)
	beat(t, store, pipeline.Report{Role: "worker", Instance: "a"})
	beat(t, store, pipeline.Report{Role: "api", Instance: "a"})
	for range 2 { // safe to repeat
		if err := store.RemoveHeartbeat(t.Context(), "worker", "a"); err != nil {
			t.Fatalf("leave: %v", err)
		}
	}
	if got := reports(t, store, time.Minute); len(got) != 1 || got[0].Role != "api" {
		t.Errorf("got %v, want the api alone", got)
	}
}

func TestAnInstanceThatFellSilentIsIgnoredAndLaterPurged(t *testing.T) {
	t.Parallel()
	store, dsn := beats(t)
	conn := connect(t, dsn)
	age := func(instance, by string) {
		beat(t, store, pipeline.Report{Role: "worker", Instance: instance})
		run(t, conn, "UPDATE heartbeats SET seen_at = now() - $2::text::interval WHERE instance = $1", instance, by)
	}
	age("silent", "61 seconds")
	age("dead", "61 minutes")
	age("self", "2 hours")
	beat(t, store, pipeline.Report{Role: "worker", Instance: "self"}) // it has come back, and is not its own undertaker
	if got := reports(t, store, time.Minute); len(got) != 1 || got[0].Instance != "self" {
		t.Errorf("got %v, want only who still speaks", got)
	}
	const all = "SELECT string_agg(instance, ' ' ORDER BY instance) FROM heartbeats"
	if got := scalar[string](t, conn, all); got != "self silent" {
		t.Errorf("got rows of %s, want the dead one's removed", got)
	}
}

func TestManyInstancesBuryTheDeadAtOnce(t *testing.T) {
	t.Parallel()
	store, dsn := beats(t)
	conn := connect(t, dsn)
	run(t, conn, `INSERT INTO heartbeats (role, instance, revision, error, loaded_at, seen_at)
		SELECT 'worker', i::text, '', '', now(), now() - interval '2 hours' FROM generate_series(1, 200) i`)
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			for range 10 {
				if err := store.RecordHeartbeat(t.Context(), pipeline.Report{Role: "api", Instance: string(rune('a' + i))}); err != nil {
					t.Errorf("beat: %v", err)
				}
				if err := store.RecordHeartbeat(t.Context(), pipeline.Report{Role: "worker", Instance: string(rune('1' + i))}); err != nil {
					t.Errorf("beat: %v", err)
				}
			}
		})
	}
	all.Wait()
	if got := scalar[int64](t, conn, "SELECT count(*) FROM heartbeats"); got != 12 {
		t.Errorf("got %d rows, want the twelve that speak", got)
	}
}

func TestHeartbeatsSayThatTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	dsn := "postgres://vitrine@" + port.Addr(t) + "/vitrine?sslmode=disable"
	store := postgres.NewStore(open(t, config(dsn), prometheus.NewRegistry()))
	_, reports := store.Heartbeats(t.Context(), time.Minute)
	for name, err := range map[string]error{
		"record":  store.RecordHeartbeat(t.Context(), pipeline.Report{}),
		"remove":  store.RemoveHeartbeat(t.Context(), "api", "a"),
		"reports": reports,
	} {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: got %v, want unavailable", name, err)
		}
	}
}
