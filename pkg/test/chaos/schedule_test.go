package main_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	chaos "vitrine.io/pkg/test/chaos"
)

const length = 25 * time.Second

func TestPlan(t *testing.T) {
	t.Parallel()
	t.Run("is_deterministic", testPlanIsDeterministic)
	t.Run("order_and_duration", testPlanOrderAndDuration)
	t.Run("short_run", testPlanShortRun)
	t.Run("faults_that_occur_once", testPlanFaultsThatOccurOnce)
	t.Run("lists_are_abused_alone", testPlanListsAreAbusedAlone)
}

// The seeds that make chaos runs first contain each of these faults, alone and with others.
func testPlanFaultsThatOccurOnce(t *testing.T) {
	t.Parallel()
	once := []chaos.Kind{chaos.Promote, chaos.Flood, chaos.AbuseLists}
	seeds := map[chaos.Kind][]uint64{}
	for seed := uint64(1); seed <= 200; seed++ {
		count := map[chaos.Kind]int{}
		for _, f := range chaos.Plan(seed, length).Faults {
			count[f.Kind]++
		}
		for _, kind := range once {
			switch {
			case count[kind] > 1:
				t.Errorf("seed %d has %q %d times", seed, kind, count[kind])
			case count[kind] == 1 && seed <= 20:
				seeds[kind] = append(seeds[kind], seed)
			}
		}
	}
	for _, kind := range once {
		t.Logf("%s: seeds %d", kind, seeds[kind])
		if len(seeds[kind]) < 3 {
			t.Errorf("%q occurs in the seeds %d, want three or more of the first 20", kind, seeds[kind])
		}
	}
}

// testPlanListsAreAbusedAlone checks that no fault that affects cached reads overlaps the abuse of lists.
func testPlanListsAreAbusedAlone(t *testing.T) {
	t.Parallel()
	for seed := uint64(1); seed <= 200; seed++ {
		s := chaos.Plan(seed, length)
		i := slices.IndexFunc(s.Faults, func(f chaos.Fault) bool { return f.Kind == chaos.AbuseLists })
		if i < 0 {
			continue
		}
		abuse := s.Faults[i]
		for _, f := range s.Faults {
			harmful := f.Kind == chaos.Promote || f.Kind == chaos.LoseCommits ||
				slices.ContainsFunc([]string{"api-", "redis-", "postgres", "to postgres"}, func(prefix string) bool {
					return strings.HasPrefix(f.Target, prefix)
				})
			if harmful && f.At < abuse.At+abuse.For && abuse.At < f.At+f.For {
				t.Errorf("seed %d: %s overlaps %s", seed, f, abuse)
			}
		}
	}
}

func testPlanIsDeterministic(t *testing.T) {
	t.Parallel()
	text := func(seed uint64) string {
		var b bytes.Buffer
		if err := chaos.Plan(seed, length).Print(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for seed := uint64(1); seed <= 50; seed++ {
		if first, second := text(seed), text(seed); first != second {
			t.Errorf("seed %d has two schedules:\n%s\n%s", seed, first, second)
		}
	}
	if text(1)[7:] == text(2)[7:] {
		t.Error("two seeds have the same schedule")
	}
	// Results are stored by seed, so the schedule of a seed must not change.
	const want = "seed 1: 11 faults, clients active for 25s\n  1.27s  pause broker-0, for 2.55s\n"
	if got := text(1); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant it to begin with\n%s", got, want)
	}
}

func testPlanOrderAndDuration(t *testing.T) {
	t.Parallel()
	kinds := map[chaos.Kind]int{}
	for seed := uint64(1); seed <= 200; seed++ {
		s := chaos.Plan(seed, length)
		if len(s.Faults) < 8 || len(s.Faults) > 16 {
			t.Errorf("seed %d has %d faults", seed, len(s.Faults))
		}
		if !slices.IsSortedFunc(s.Faults, func(a, b chaos.Fault) int { return int(a.At - b.At) }) {
			t.Errorf("seed %d is not ordered by time", seed)
		}
		ends := map[string]time.Duration{}
		for _, f := range s.Faults {
			kinds[f.Kind]++
			if f.At < 0 || f.At+f.For > length {
				t.Errorf("seed %d: %s is not within %s", seed, f, length)
			}
			if f.At < ends[f.Target] && f.Kind != chaos.KillCodec && f.Kind != chaos.LoseCommits && f.Kind != chaos.Cut {
				t.Errorf("seed %d: %s overlaps another fault of its target", seed, f)
			}
			if f.Kind != chaos.KillCodec && f.Kind != chaos.LoseCommits {
				ends[f.Target] = f.At + f.For
			}
			brokers := strings.HasPrefix(f.Target, "broker-")
			if brokers && f.At < ends["a broker"] {
				t.Errorf("seed %d: %s, while another broker is unavailable", seed, f)
			} else if brokers {
				ends["a broker"] = f.At + f.For
			}
		}
	}
	for _, kind := range []chaos.Kind{
		chaos.Kill, chaos.Stop, chaos.Pause, chaos.KillCodec, chaos.Cut, chaos.Down, chaos.Hold, chaos.Delay,
		chaos.LoseCommits, chaos.KillMaster, chaos.PauseMaster, chaos.ResolverAway, chaos.EgressAway, chaos.Promote, chaos.Flood,
		chaos.AbuseLists,
	} {
		if kinds[kind] < 20 {
			t.Errorf("%q occurs %d times in 200 seeds", kind, kinds[kind])
		}
	}
}

func testPlanShortRun(t *testing.T) {
	t.Parallel()
	for _, f := range chaos.Plan(3, 5*time.Second).Faults {
		if f.At+f.For > 6*time.Second {
			t.Errorf("%s", f)
		}
	}
}
