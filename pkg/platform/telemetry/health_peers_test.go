package telemetry_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/platform/telemetry"
)

// board is where the instances of a test announce that their database answers.
type board struct {
	ttl  time.Duration
	down atomic.Bool

	mu sync.Mutex
	by string
	at time.Time
}

// seat is the board as one instance uses it.
type seat struct {
	*board
	name string
}

var errBoard = errors.New("redis is down")

func (s seat) Announce(context.Context) error {
	if s.down.Load() {
		return errBoard
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by, s.at = s.name, time.Now()
	return nil
}

func (s seat) Announced(context.Context) (bool, error) {
	if s.down.Load() {
		return false, errBoard
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by != "" && s.by != s.name && time.Since(s.at) < s.ttl, nil
}

// pair is two running instances that share a database and a board.
type pair struct {
	board    *board
	db       [2]*dependency
	instance [2]*telemetry.Health
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{board: &board{ttl: healthConfig().MarkTTL()}}
	for i, name := range []string{"a", "b"} {
		p.db[i] = &dependency{}
		shared := p.db[i].as("postgres")
		shared.Shared = true
		p.instance[i] = telemetry.NewHealth(healthConfig(), []telemetry.Dependency{shared}, time.Now, nil, zap.NewNop())
		p.instance[i].SetPeers(seat{p.board, name})
		runHealth(t, p.instance[i])
	}
	pass(10 * time.Second)
	p.want(t, "at first", telemetry.Ready, telemetry.Ready)
	return p
}

func (p *pair) want(t *testing.T, when string, want ...telemetry.Status) {
	t.Helper()
	for i, h := range p.instance {
		if got := h.Report(); got.Status != want[i] {
			t.Errorf("%s: instance %d is %s (%s), want %s", when, i, got.Status, got.Reason, want[i])
		}
	}
}

func TestHealthPeers(t *testing.T) {
	t.Parallel()
	t.Run("one_instance_is_cut_off", testHealthPeersCutOff)
	t.Run("all_instances_lose_the_database", testHealthPeersAllLose)
	t.Run("announcements_cannot_be_read", testHealthPeersNoBoard)
	t.Run("cut_off_before_the_first_success", testHealthPeersNeverReady)
}

func testHealthPeersCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.db[0].down.Store(true)
		pass(25 * time.Second)
		p.want(t, "before the threshold", telemetry.Ready, telemetry.Ready)
		pass(10 * time.Second)
		p.want(t, "after it", telemetry.NotReady, telemetry.Ready)
		pass(time.Hour)
		p.want(t, "an hour later", telemetry.NotReady, telemetry.Ready)
		p.db[0].down.Store(false)
		pass(2 * time.Second)
		p.want(t, "once it answers again", telemetry.Ready, telemetry.Ready)
	})
}

func testHealthPeersAllLose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.db[0].down.Store(true)
		pass(35 * time.Second)
		p.want(t, "one", telemetry.NotReady, telemetry.Ready)
		p.db[1].down.Store(true)
		pass(15 * time.Second)
		p.want(t, "both: none is better off", telemetry.Ready, telemetry.Ready)
		pass(time.Hour)
		p.want(t, "both, an hour later", telemetry.Ready, telemetry.Ready)
	})
}

func testHealthPeersNoBoard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.db[0].down.Store(true)
		pass(35 * time.Second)
		p.want(t, "with announcements", telemetry.NotReady, telemetry.Ready)
		p.board.down.Store(true)
		pass(5 * time.Second)
		p.want(t, "without", telemetry.Ready, telemetry.Ready)
	})
}

// An instance that has never reached the database is not ready, even if no other announces.
func testHealthPeersNeverReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		db := &dependency{}
		db.down.Store(true)
		shared := db.as("postgres")
		shared.Shared = true
		h := telemetry.NewHealth(healthConfig(), []telemetry.Dependency{shared}, time.Now, nil, zap.NewNop())
		h.SetPeers(seat{p.board, "c"})
		runHealth(t, h)
		for _, silent := range []bool{false, true} {
			p.board.down.Store(silent)
			pass(time.Minute)
			if got := h.Report(); got.Status != telemetry.NotReady || got.Reason != "not available: postgres" {
				t.Errorf("got %+v", got)
			}
		}
	})
}
