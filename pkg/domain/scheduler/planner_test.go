package scheduler_test

import (
	"fmt"
	"testing"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/scheduler"
)

func flow(user catalog.UserID, host string) scheduler.Flow {
	return scheduler.Flow{User: user, Host: host}
}

// plan returns the jobs that a planner grants to each flow.
func plan(p *scheduler.Planner, due, inFlight map[scheduler.Flow]int, limit int) map[scheduler.Flow]int {
	var waiting []scheduler.Waiting
	for f, n := range due {
		waiting = append(waiting, scheduler.Waiting{Flow: f, Due: n})
	}
	granted := map[scheduler.Flow]int{}
	for _, g := range p.Plan(waiting, inFlight, limit) {
		granted[g.Flow] += g.Jobs
	}
	return granted
}

func TestPlan(t *testing.T) {
	t.Parallel()
	a, b, c := flow(1, "h"), flow(2, "h"), flow(3, "h")
	a2, b2 := flow(1, "i"), flow(2, "i")
	type jobs = map[scheduler.Flow]int
	for _, test := range []struct {
		name          string
		host, total   int
		limit         int
		due, inFlight jobs
		want          jobs
	}{
		{"everything_fits", 10, 100, 100, jobs{a: 3, b: 2}, jobs{}, jobs{a: 3, b: 2}},
		{"nothing_waits", 10, 100, 100, jobs{}, jobs{a: 1}, jobs{}},
		{"host_window_is_shared_equally", 10, 100, 100, jobs{a: 100, b: 100}, jobs{}, jobs{a: 5, b: 5}},
		{"newcomer_goes_first", 10, 100, 100, jobs{a: 100, b: 3}, jobs{a: 8}, jobs{b: 2}},
		{"newcomer_leaves_the_rest", 10, 100, 100, jobs{a: 100, b: 3}, jobs{a: 4}, jobs{a: 3, b: 3}},
		{"full_host_gets_nothing", 10, 100, 100, jobs{a: 5, a2: 5}, jobs{c: 10}, jobs{a2: 5}},
		{"exceeded_windows_get_nothing", 10, 12, 100, jobs{a: 5, a2: 5}, jobs{c: 15}, jobs{}},
		{"total_is_shared_by_users_and_not_by_flows", 100, 12, 100, jobs{a: 50, a2: 50, b2: 50}, jobs{}, jobs{a: 3, a2: 3, b2: 6}},
		{"total_goes_to_the_user_with_fewest_in_flight", 100, 12, 100, jobs{a: 50, b2: 2}, jobs{a2: 10}, jobs{b2: 2}},
		{"limit_is_a_bound", 100, 100, 4, jobs{a: 50, b: 50}, jobs{}, jobs{a: 2, b: 2}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := scheduler.NewPlanner(scheduler.Windows{Host: test.host, Total: test.total})
			got := plan(p, test.due, test.inFlight, test.limit)
			if fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// More users wait for a host than its window admits. Each is served before any is served twice.
func TestPlanTakesTurns(t *testing.T) {
	t.Parallel()
	const users = 40
	p := scheduler.NewPlanner(scheduler.Windows{Host: 3, Total: 1000})
	due := map[scheduler.Flow]int{}
	for u := range catalog.UserID(users) {
		due[flow(u+1, "h")] = 1000
	}
	served := map[scheduler.Flow]int{}
	for range 5 * users { // one job ends in each round
		for f, n := range plan(p, due, map[scheduler.Flow]int{flow(99, "h"): 2}, 100) {
			served[f] += n
		}
	}
	for f := range due {
		if served[f] != 5 {
			t.Errorf("user %d was served %d times, want 5", f.User, served[f])
		}
	}
}

// While a window is full, the search finds no jobs that wait for it. Turns are not forgotten meanwhile.
func TestPlanKeepsTurnsWhileFull(t *testing.T) {
	t.Parallel()
	for name, windows := range map[string]scheduler.Windows{"host": {Host: 1, Total: 100}, "total": {Host: 100, Total: 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := scheduler.NewPlanner(windows)
			due := map[scheduler.Flow]int{}
			for u := range catalog.UserID(5) {
				due[flow(u+1, "h")] = 100
			}
			served := map[scheduler.Flow]int{}
			for range 5 {
				for f := range plan(p, due, map[scheduler.Flow]int{}, 100) {
					served[f]++
					plan(p, nil, map[scheduler.Flow]int{f: 1}, 100) // the window is full
				}
			}
			if len(served) != 5 {
				t.Errorf("%d of 5 users had a turn: %v", len(served), served)
			}
		})
	}
}
