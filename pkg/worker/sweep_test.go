package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/worker"
)

// yard is everything that sweepers work on.
type yard struct {
	mu       sync.Mutex
	overdue  []worker.Picture
	repeated []worker.Picture
	purge    int
	keys     int
	after    time.Duration // how old a key has to be
	intents  map[string]*intent
	objects  map[string]bool
	again    time.Duration
	broken   error // of everything
	noDelete error // of DeletePrefix, but for b/
	looks    int
}

type intent struct {
	due    time.Time
	doomed bool
}

func (y *yard) OverdueImages(_ context.Context, limit int, _ time.Duration) ([]worker.Picture, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.looks++
	return slices.Clone(y.overdue[:min(limit, len(y.overdue))]), y.broken
}

func (y *yard) PurgeDeleted(_ context.Context, limit int, _ time.Duration) (int, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	n := min(limit, y.purge)
	y.purge -= n
	return n, y.broken
}

func (y *yard) PurgeKeys(_ context.Context, limit int, after time.Duration) (int, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	n := min(limit, y.keys)
	y.keys, y.after = y.keys-n, after
	return n, y.broken
}

func (y *yard) Repeat(_ context.Context, product catalog.ProductID, image catalog.ImageID, _ time.Duration) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.overdue = slices.DeleteFunc(y.overdue, func(o worker.Picture) bool { return o.ImageID == image })
	switch image {
	case 404:
		return catalog.ErrDone
	case 500:
		return errors.New("down")
	}
	y.repeated = append(y.repeated, worker.Picture{ProductID: product, ImageID: image})
	return nil
}

func (y *yard) DoomDue(_ context.Context, limit int, again time.Duration) ([]string, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.looks++
	y.again = again
	return y.due(limit, false, func(in *intent) { in.doomed, in.due = true, time.Now().Add(again) }), y.broken
}

func (y *yard) DoomedDue(_ context.Context, limit int) ([]string, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.due(limit, true, func(*intent) {}), y.broken
}

func (y *yard) due(limit int, doomed bool, mark func(*intent)) []string {
	var found []string
	for prefix, in := range y.intents {
		if in.doomed == doomed && !in.due.After(time.Now()) && len(found) < limit {
			mark(in)
			found = append(found, prefix)
		}
	}
	return found
}

func (y *yard) RemoveIntent(_ context.Context, prefix string) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	delete(y.intents, prefix)
	return y.broken
}

func (y *yard) Put(context.Context, string, string, io.ReadSeeker, int64) error {
	return errors.New("a sweeper stores nothing")
}

func (y *yard) DeletePrefix(_ context.Context, prefix string) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.noDelete != nil && prefix != "b/" {
		return y.noDelete
	}
	if in := y.intents[prefix]; in == nil || !in.doomed {
		return fmt.Errorf("%s is deleted before it is doomed", prefix)
	}
	delete(y.objects, prefix)
	return nil
}

func sweepConfig() worker.SweepConfig {
	return worker.SweepConfig{
		Interval: time.Minute, Batch: 3, Patience: time.Minute, Again: time.Hour, PurgeAfter: time.Hour, KeysAfter: 24 * time.Hour,
	}
}

// during runs a sweeper for d of pretended time.
func during(t *testing.T, d time.Duration, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := run(ctx); err != nil {
		t.Error(err)
	}
}

func TestSweeper(t *testing.T) {
	t.Parallel()

	t.Run("repeats all that is overdue and purges, batch after batch", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			y := &yard{purge: 7}
			for i := range 10 {
				y.overdue = append(y.overdue, worker.Picture{ProductID: 1, ImageID: catalog.ImageID(i + 1)})
			}
			y.overdue[4].ImageID = 404
			s := worker.NewSweeper(y, y, sweepConfig(), prometheus.NewRegistry(), zap.NewNop())
			during(t, time.Minute+time.Second, s.Run) // one interval: full batches follow at once
			if len(y.repeated) != 9 || y.purge != 0 {
				t.Errorf("repeated %d, left %d to purge, want 9 and 0", len(y.repeated), y.purge)
			}
		})
	})

	t.Run("forgets old keys, batch after batch, and counts them", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			y, reg := &yard{keys: 7}, prometheus.NewRegistry()
			s := worker.NewSweeper(y, y, sweepConfig(), reg, zap.NewNop())
			during(t, time.Minute+time.Second, s.Run)
			if y.keys != 0 || y.after != 24*time.Hour {
				t.Errorf("left %d keys, asked for those older than %s, want none and a day", y.keys, y.after)
			}
			want := "# HELP vitrine_worker_sweeper_keys_purged_total Idempotency keys that were forgotten.\n" +
				"# TYPE vitrine_worker_sweeper_keys_purged_total counter\nvitrine_worker_sweeper_keys_purged_total 7\n"
			err := testutil.GatherAndCompare(reg, strings.NewReader(want), "vitrine_worker_sweeper_keys_purged_total")
			if err != nil {
				t.Error(err)
			}
		})
	})

	t.Run("an error ends a look, not the sweeper", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			y := &yard{overdue: []worker.Picture{{ProductID: 1, ImageID: 500}, {ProductID: 1, ImageID: 2}}}
			s := worker.NewSweeper(y, y, sweepConfig(), reg, zap.NewNop())
			during(t, time.Minute+time.Second, s.Run) // one look: who fails does not hold up who comes after
			if len(y.repeated) != 1 {
				t.Errorf("repeated %v, want picture 2", y.repeated)
			}
			y.broken = errors.New("down")
			during(t, 150*time.Second, s.Run)
			if n, err := testutil.GatherAndCount(reg, "vitrine_worker_sweeper_errors_total"); err != nil || n != 1 {
				t.Errorf("got %d, %v", n, err)
			}
			if y.looks != 3 {
				t.Errorf("looked %d times, want one an interval", y.looks)
			}
		})
	})
}

func TestCompensator(t *testing.T) {
	t.Parallel()

	t.Run("dooms, deletes, deletes again later and forgets", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			now := time.Now()
			y := &yard{
				intents: map[string]*intent{
					"a/": {due: now}, "b/": {due: now}, "c/": {due: now}, "d/": {due: now}, "later/": {due: now.Add(24 * time.Hour)},
				},
				objects: map[string]bool{"a/": true, "b/": true, "c/": true, "d/": true, "later/": true},
			}
			c := worker.NewCompensator(y, y, sweepConfig(), prometheus.NewRegistry(), zap.NewNop())
			during(t, time.Minute+time.Second, c.Run)
			if len(y.objects) != 1 || len(y.intents) != 5 {
				t.Errorf("after a look: objects %v, %d intents, want one and five", y.objects, len(y.intents))
			}
			y.objects["a/"] = true // an upload that was still on its way
			during(t, 2*time.Hour, c.Run)
			if len(y.objects) != 1 || len(y.intents) != 1 || !y.objects["later/"] {
				t.Errorf("in the end: objects %v, intents %v, want only what is not due", y.objects, y.intents)
			}
		})
	})

	t.Run("what could not be deleted is deleted the second time", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			y := &yard{
				intents:  map[string]*intent{"a/": {due: time.Now()}, "b/": {due: time.Now()}},
				objects:  map[string]bool{"a/": true, "b/": true},
				noDelete: errors.New("down"),
			}
			c := worker.NewCompensator(y, y, sweepConfig(), prometheus.NewRegistry(), zap.NewNop())
			during(t, 3*time.Hour, c.Run)
			if len(y.intents) != 1 || len(y.objects) != 1 || !y.objects["a/"] {
				t.Fatalf("intents %v, objects %v: want a/ kept until it can be deleted, and b/ gone", y.intents, y.objects)
			}
			y.noDelete = nil
			during(t, 2*time.Minute, c.Run)
			if len(y.objects) != 0 || len(y.intents) != 0 {
				t.Errorf("objects %v, intents %v", y.objects, y.intents)
			}
		})
	})

	t.Run("a database that is down is looked at again", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			y := &yard{broken: errors.New("down")}
			c := worker.NewCompensator(y, y, sweepConfig(), prometheus.NewRegistry(), zap.NewNop())
			during(t, 10*time.Minute+time.Second, c.Run)
			if y.looks != 10 {
				t.Errorf("looked %d times in ten minutes, want 10", y.looks)
			}
		})
	})
}
