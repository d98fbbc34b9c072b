package backfill_test

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/storetest"
)

// memory keeps backfills in maps. It passes the suite in pkg/test/storetest. Tests set its clock, its jobs and the pipelines
// in force.
type memory struct {
	mu          sync.Mutex
	now         time.Time
	backfills   map[int64]*stored
	last        int64
	leases      int
	events      []catalog.BackfillEvent
	outstanding int
	inForce     []string
	samples     map[int64][]*memorySample
	sampleErr   error  // of every call about samples of a walk
	onInForce   func() // called before it is read; may be nil
}

type stored struct {
	backfill.Backfill
	lease string
	due   time.Time
}

func newMemory() *memory {
	return &memory{now: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), backfills: map[int64]*stored{},
		samples: map[int64][]*memorySample{}}
}

func TestMemoryBackfills(t *testing.T) {
	t.Parallel()
	storetest.RunBackfills(t, func(*testing.T) storetest.BackfillParts {
		m := newMemory()
		return storetest.BackfillParts{Backfills: m, Walks: m, Pipelines: noPipelines{}, Canaries: m, Record: m.record}
	})
}

// noPipelines saves nothing.
type noPipelines struct{}

func (noPipelines) SavePipeline(context.Context, string, []byte) error { return nil }

func (noPipelines) Pipeline(context.Context, string) ([]byte, error) {
	return nil, fault.New(fault.NotFound, "pipeline_not_found", "no such pipeline")
}

func (m *memory) record(_ testing.TB, events ...catalog.BackfillEvent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, events...)
}

func clone(b backfill.Backfill) backfill.Backfill {
	b.Failures, b.Windows = maps.Clone(b.Failures), slices.Clone(b.Windows)
	b.Canary.Failures, b.Canary.Examples = maps.Clone(b.Canary.Failures), slices.Clone(b.Canary.Examples)
	return b
}

func (m *memory) ProposeBackfill(_ context.Context, b backfill.Backfill, keep int) (backfill.Backfill, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.backfills {
		if b.ResourceUID != "" && s.ResourceUID == b.ResourceUID && s.Generation == b.Generation {
			return backfill.Backfill{}, fault.New(fault.Conflict, "generation_exists", "it has a backfill")
		}
	}
	for _, s := range m.backfills {
		if s.Pipeline != b.Pipeline {
			continue
		}
		b.Number = max(b.Number, s.Number)
		if s.State == backfill.Proposed {
			s.State, s.EndedAt, s.lease, s.due = backfill.Superseded, m.now, "", m.now
		}
	}
	b.Number++
	m.last++
	b.ID, b.CreatedAt = m.last, m.now
	m.backfills[b.ID] = &stored{Backfill: clone(b), due: m.now}
	ended := 0
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(m.backfills))) {
		if s := m.backfills[id]; s.State.Ended() {
			if ended++; ended > keep {
				delete(m.backfills, id)
			}
		}
	}
	return clone(b), nil
}

func (m *memory) EditBackfill(_ context.Context, name string, fn func(*backfill.Backfill, time.Time) error,
) (backfill.Backfill, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.backfills {
		if s.Name() != name {
			continue
		}
		b := clone(s.Backfill)
		if err := fn(&b, m.now); err != nil {
			return backfill.Backfill{}, err
		}
		s.Backfill, s.lease, s.due = clone(b), "", m.now
		return b, nil
	}
	return backfill.Backfill{}, fault.New(fault.NotFound, "backfill_not_found", "no such backfill")
}

func (m *memory) ListBackfills(context.Context) ([]backfill.Backfill, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []backfill.Backfill
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(m.backfills))) {
		list = append(list, clone(m.backfills[id].Backfill))
	}
	return list, nil
}

func (m *memory) AcquireWalk(_ context.Context, lease time.Duration) (backfill.Walk, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	running := func(except int64) bool {
		return slices.ContainsFunc(slices.Collect(maps.Values(m.backfills)), func(s *stored) bool {
			return s.State == backfill.Running && s.ID != except
		})
	}
	for _, id := range slices.Sorted(maps.Keys(m.backfills)) {
		s := m.backfills[id]
		own := func(e catalog.BackfillEvent) bool { return e.BackfillID == id }
		active := s.State == backfill.Approved || s.State == backfill.Running
		if s.due.After(m.now) || !active && !slices.ContainsFunc(m.events, own) && len(m.samples[id]) == 0 {
			continue
		}
		before := s.Backfill
		for _, e := range m.events {
			if own(e) {
				s.Add(e.Kind, e.Code, 1)
			}
		}
		m.events = slices.DeleteFunc(m.events, own)
		s.Settle(before, m.outstanding, m.now)
		m.leases++
		s.lease, s.due = strconv.Itoa(m.leases), m.now.Add(lease)
		return backfill.Walk{
			Backfill: clone(s.Backfill), Lease: s.lease, Outstanding: m.outstanding, Sampled: len(m.samples[id]) > 0,
			OtherRunning: running(id), Now: m.now,
		}, true, nil
	}
	return backfill.Walk{}, false, nil
}

func (m *memory) SaveWalk(_ context.Context, w backfill.Walk, wait time.Duration) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.backfills[w.ID]
	if s.lease != w.Lease {
		return false, nil
	}
	for _, other := range m.backfills {
		if w.State == backfill.Running && other.State == backfill.Running && other.ID != w.ID {
			return false, nil
		}
	}
	s.Backfill, s.due = clone(w.Backfill), m.now.Add(wait)
	return true, nil
}

func (m *memory) InForce(context.Context) ([]string, error) {
	if m.onInForce != nil {
		m.onInForce()
	}
	return m.inForce, nil
}
