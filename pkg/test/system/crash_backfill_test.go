package system_test

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/pipeline"
)

// backfills returns a manager of the system's backfills.
func (s *crashEnv) backfills() backfill.Manager {
	s.t.Helper()
	db, err := postgres.Open(postgres.Config{
		DSN: s.env["VITRINE_POSTGRES_DSN"], MaxOpenConns: 2, ConnMaxLifetime: time.Hour, ConnMaxIdleTime: time.Hour,
		ConnectTimeout: timeout, Timeout: timeout, StatementTimeout: timeout, LockTimeout: timeout, SlowQuery: time.Hour,
		EditQueue: 10, OutboxMaxTries: 1,
		List: postgres.ListConfig{MaxOpenConns: 1, MaxWaiting: 1, Wait: timeout, StatementTimeout: timeout},
	}, zap.NewNop(), prometheus.NewRegistry())
	s.must(err)
	s.t.Cleanup(func() { _ = db.Close() })
	store := postgres.NewStore(db)
	return backfill.Manager{By: backfill.CLI, ManagerDeps: backfill.ManagerDeps{
		Backfills: store, Images: store, Sampler: store, Pipelines: store,
	}}
}

// change writes a pipeline with another width of the thumbnail to the file, and approves a backfill to it.
func (s *crashEnv) change(m backfill.Manager, width int) backfill.Backfill {
	s.t.Helper()
	document, err := os.ReadFile(s.env["VITRINE_PIPELINE_FILE"])
	s.must(err)
	p, err := pipeline.Parse(document)
	s.must(err)
	p.Spec.Renditions[0].Width = width
	s.must(os.WriteFile(s.env["VITRINE_PIPELINE_FILE"], p.Document(), 0o600))
	b, err := m.Propose(s.t.Context(), backfill.Proposal{
		Target: pipeline.NewRevision(p), Selection: backfill.Selection{Kind: backfill.Renditions}, Pace: backfill.DefaultPace(),
	})
	s.must(err)
	b, err = m.Approve(s.t.Context(), b.Name(), b.TargetHash)
	s.must(err)
	return b
}

// awaitBackfill waits until a backfill meets a condition.
func (s *crashEnv) awaitBackfill(m backfill.Manager, name, what string, ok func(backfill.Backfill) bool) backfill.Backfill {
	s.t.Helper()
	var found backfill.Backfill
	eventually(s.t, name+" is "+what, func() error {
		list, err := m.Backfills.ListBackfills(s.t.Context())
		s.must(err)
		for _, b := range list {
			if b.Name() == name {
				found = b
			}
		}
		if !ok(found) {
			return fmt.Errorf("it is %+v", found)
		}
		return nil
	})
	return found
}

func isComplete(b backfill.Backfill) bool { return b.State == backfill.Complete }

// TestBackfillCrash crashes the api at each step of a backfill's walk. Each image is made once, and none is forgotten.
func TestBackfillCrash(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	m := s.backfills()
	s.start("worker")
	for i, row := range []struct { //nolint:paralleltest // subtests share one system
		name string
		at   failpoint.Name
	}{
		{"started", failpoint.BackfillStarted},
		{"image_requested", failpoint.BackfillRequested},
		{"position_saved", failpoint.BackfillSaved},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := s.forSubtest(t)
			api := s.start("api")
			p, err := s.tryPost(row.name, s.sources.URL+drawingPath)
			s.must(err)
			s.checkOutcome(p.ID, undisturbed)
			s.stop(api)
			s.exec("DELETE FROM images WHERE product_id <> $1", p.ID) // those of other rows, whose servers are gone
			s.exec("DELETE FROM heartbeats")                          // that of the crashed api would count for a minute
			b := s.change(m, 100+i)

			s.awaitCrash(s.startWithFailpoint("api", row.at, 1), cacheGroup)
			api = s.start("api")
			b = s.awaitBackfill(m, b.Name(), "complete", isComplete)
			if b.Done != 1 || b.Failed+b.Skipped != 0 {
				t.Errorf("%d done, %d failed, %d skipped, want one done", b.Done, b.Failed, b.Skipped)
			}
			s.checkOutcome(p.ID, outcome{version: 3, attempts: 1, fencingToken: 2})
			s.stop(api)
		})
	}
}

// TestBackfillDropCrash crashes the api while it drops the job of a suspended backfill that no worker has begun.
func TestBackfillDropCrash(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	m := s.backfills()
	api, worker := s.start("api"), s.start("worker")
	p, err := s.tryPost("Lamp", s.sources.URL+drawingPath)
	s.must(err)
	s.checkOutcome(p.ID, undisturbed)
	s.stop(worker)
	s.stop(api)
	b := s.change(m, 100)

	api = s.startWithFailpoint("api", failpoint.BackfillDropped, 1)
	s.awaitBackfill(m, b.Name(), "waiting for a worker", func(b backfill.Backfill) bool { return b.Requested == 1 })
	_, err = m.Suspend(t.Context(), b.Name(), false)
	s.must(err)
	s.awaitCrash(api, cacheGroup)
	s.start("api")
	eventually(t, "the drop is counted", func() error {
		if n := queryColumn[int64](s, "SELECT count(*) FROM backfill_events")[0]; n != 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if n := queryColumn[int64](s, "SELECT count(*) FROM image_jobs")[0]; n != 0 {
		t.Errorf("%d jobs are left", n)
	}
	_, err = m.Resume(t.Context(), b.Name())
	s.must(err)
	s.start("worker")
	if b = s.awaitBackfill(m, b.Name(), "complete", isComplete); b.Done != 1 || b.Failed+b.Skipped != 0 {
		t.Errorf("%d done, %d failed, %d skipped, want one done", b.Done, b.Failed, b.Skipped)
	}
	s.checkOutcome(p.ID, outcome{version: 3, attempts: 1, fencingToken: 2})
}
