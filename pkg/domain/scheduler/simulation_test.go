package scheduler_test

import (
	"slices"
	"testing"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/scheduler"
)

// simulation drives a planner with a simulated clock. Released jobs wait in one queue, as in Kafka. The workers take them in
// order; each job takes a second. Its step is the interval of the scheduler.
type simulation struct {
	planner  *scheduler.Planner
	workers  int
	now      time.Duration
	waiting  map[scheduler.Flow]int
	inFlight map[scheduler.Flow]int
	queue    []scheduler.Flow // released, not begun
	running  []run
	ended    map[scheduler.Flow][]time.Duration // when each job ended
	maxHost  int                                // the most jobs of one host that were ever in flight
}

type run struct {
	scheduler.Flow
	end time.Duration
}

const (
	step = 500 * time.Millisecond
	work = time.Second
)

func newSimulation(w scheduler.Windows, workers int) *simulation {
	return &simulation{
		planner: scheduler.NewPlanner(w), workers: workers, waiting: map[scheduler.Flow]int{},
		inFlight: map[scheduler.Flow]int{}, ended: map[scheduler.Flow][]time.Duration{},
	}
}

// advance lets jobs end and begin, and runs one round.
func (s *simulation) advance() {
	s.now += step
	s.running = slices.DeleteFunc(s.running, func(r run) bool {
		if r.end > s.now {
			return false
		}
		s.ended[r.Flow] = append(s.ended[r.Flow], s.now)
		if s.inFlight[r.Flow]--; s.inFlight[r.Flow] == 0 {
			delete(s.inFlight, r.Flow)
		}
		return true
	})
	for len(s.queue) > 0 && len(s.running) < s.workers {
		s.running = append(s.running, run{s.queue[0], s.now + work})
		s.queue = s.queue[1:]
	}
	for f, n := range plan(s.planner, s.waiting, s.inFlight, 500) {
		for range n {
			s.queue = append(s.queue, f)
		}
		if s.waiting[f] -= n; s.waiting[f] == 0 {
			delete(s.waiting, f)
		}
	}
	hosts := map[string]int{}
	for f, n := range s.inFlight {
		hosts[f.Host] += n
		s.maxHost = max(s.maxHost, hosts[f.Host])
	}
}

// TestFairness gives a second user ten images beside a backlog of 100,000 that has been processed for a minute. All ten,
// and so 95 % of them, are ready within about ten seconds.
func TestFairness(t *testing.T) {
	t.Parallel()
	const ten = 10
	backlog := func(hosts int) func(s *simulation) {
		return func(s *simulation) {
			for h := range hosts {
				s.waiting[flow(1, string(rune('a'+h%26))+string(rune('a'+h/26))+".example")] = 100_000 / hosts
			}
		}
	}
	for _, test := range []struct {
		name  string
		fill  func(s *simulation)
		small scheduler.Flow
		limit time.Duration
	}{
		{"same_host", backlog(1), flow(2, "aa.example"), 10 * time.Second},
		{"another_host", backlog(1), flow(2, "other.example"), 10 * time.Second},
		// The window in all is ten seconds of work. The images wait behind it, and take one second.
		{"backlog_of_many_hosts", backlog(500), flow(2, "other.example"), 11 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSimulation(scheduler.Windows{Host: 64, Total: 480}, 48) // 2 x 20 x 12 in all, for 12 workers
			test.fill(s)
			for s.now < time.Minute {
				s.advance()
			}
			s.waiting[test.small] += ten
			start := s.now
			for len(s.ended[test.small]) < ten && s.now < start+time.Hour {
				s.advance()
			}
			took := s.ended[test.small]
			if len(took) != ten {
				t.Fatalf("%d of ten images ended within an hour", len(took))
			}
			if last := took[len(took)-1] - start; last > test.limit {
				t.Errorf("the last of ten images took %s, want at most %s", last, test.limit)
			}
			if s.maxHost > 64 {
				t.Errorf("%d jobs of one host were in flight, want at most 64", s.maxHost)
			}
		})
	}
}

// TestBacklogEnds shows that a window never leaks: all jobs of a backlog of many flows end, and nothing stays in flight.
func TestBacklogEnds(t *testing.T) {
	t.Parallel()
	s := newSimulation(scheduler.Windows{Host: 8, Total: 20}, 10)
	jobs := 0
	for u := range catalog.UserID(30) {
		for _, host := range []string{"a", "b", "c"} {
			s.waiting[flow(u+1, host)] = int(u) + 1
			jobs += int(u) + 1
		}
	}
	for s.now < time.Duration(jobs)*work && len(s.waiting)+len(s.inFlight) > 0 {
		s.advance()
	}
	ended := 0
	for _, times := range s.ended {
		ended += len(times)
	}
	if ended != jobs || len(s.waiting)+len(s.inFlight) > 0 || s.maxHost > 8 {
		t.Errorf("%d of %d jobs ended, %v are in flight; at most %d of one host were", ended, jobs, s.inFlight, s.maxHost)
	}
}
