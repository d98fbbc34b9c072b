package main

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"
)

// Kind is what is done to a target.
type Kind string

// The kinds of faults. Each lasts for a while, after which the target is healed.
const (
	Kill        Kind = "kill -9"           // the process is gone, and started again at the end
	Stop        Kind = "stop"              // SIGTERM: it ends in order, and is started again
	Pause       Kind = "pause"             // SIGSTOP, and SIGCONT at the end
	KillCodec   Kind = "kill codec"        // the child of a worker, at once
	Cut         Kind = "cut"               // all connections break, at once
	Down        Kind = "down"              // all connections break and nobody gets in
	Hold        Kind = "hold"              // nothing arrives; what was under way arrives late
	Delay       Kind = "delay"             // everything arrives late
	LoseCommits Kind = "lose COMMITs of"   // Postgres commits, and the answer is lost
	KillMaster  Kind = "kill -9 master of" // of a part of the Redis Cluster; its replica takes over
	PauseMaster Kind = "pause master of"   // it wakes up when another has taken over
)

// Fault is one thing that goes wrong.
type Fault struct {
	At     time.Duration // since the clients began
	For    time.Duration
	Kind   Kind
	Target string
	Amount int // of LoseCommits: how many; of Delay: milliseconds
}

// String is the fault as one line.
func (f Fault) String() string {
	line := fmt.Sprintf("%6.2fs  %s %s", f.At.Seconds(), f.Kind, f.Target)
	switch f.Kind {
	case LoseCommits:
		line += fmt.Sprintf(", %d of them, at most", f.Amount)
	case Delay:
		line += fmt.Sprintf(" by %d ms", f.Amount)
	}
	if f.For > 0 {
		line += fmt.Sprintf(", for %.2fs", f.For.Seconds())
	}
	return line
}

// Schedule is what goes wrong in a run.
type Schedule struct {
	Seed   uint64
	Length time.Duration // how long the clients are at work
	Faults []Fault       // in the order of time; all are over within Length and a few seconds
}

// Print writes the schedule, one line for each fault.
func (s Schedule) Print(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "seed %d: %d faults, clients at work for %s\n", s.Seed, len(s.Faults), s.Length); err != nil {
		return err
	}
	for _, f := range s.Faults {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	return nil
}

// faultOption is one row of what may happen: how often beside the others, to whom, and for how long in milliseconds.
type faultOption struct {
	weight     int
	kind       Kind
	targets    []string
	exclusion       string // what must not be hit twice at a time; empty: the target
	minMillis, maxMillis int
	amount     [2]int // from, up to
}

// faultOptions is the one table of what may happen. A pause of a worker or an api may be longer than its group waits for it, so
// that it wakes up as a zombie. Only one broker and one part of the Redis Cluster are away at a time: two of three is an
// outage that is not promised to be survived without waiting, and one of each is enough to begin with.
var faultOptions = []faultOption{
	{weight: 16, kind: Kill, targets: []string{"worker-0", "worker-1"}, minMillis: 100, maxMillis: 2500},
	{weight: 10, kind: Kill, targets: []string{"api-0", "api-1"}, minMillis: 100, maxMillis: 2500},
	{weight: 6, kind: Stop, targets: []string{"worker-0", "worker-1", "api-0", "api-1"}, minMillis: 100, maxMillis: 1000},
	{weight: 8, kind: Pause, targets: []string{"worker-0", "worker-1"}, minMillis: 1000, maxMillis: 14000},
	{weight: 6, kind: Pause, targets: []string{"api-0", "api-1"}, minMillis: 1000, maxMillis: 12000},
	{weight: 10, kind: KillCodec, targets: []string{"worker-0", "worker-1"}, exclusion: "codec"},
	{weight: 6, kind: Kill, targets: []string{"broker-0", "broker-1", "broker-2"}, exclusion: "kafka", minMillis: 1000, maxMillis: 6000},
	{weight: 5, kind: Pause, targets: []string{"broker-0", "broker-1", "broker-2"}, exclusion: "kafka", minMillis: 1000, maxMillis: 8000},
	{weight: 5, kind: KillMaster, targets: []string{"redis-0", "redis-1", "redis-2"}, exclusion: "redis", minMillis: 2500, maxMillis: 7000},
	{weight: 4, kind: PauseMaster, targets: []string{"redis-0", "redis-1", "redis-2"}, exclusion: "redis", minMillis: 500, maxMillis: 7000},
	{weight: 6, kind: Kill, targets: []string{"postgres"}, minMillis: 1, maxMillis: 1500},
	{weight: 4, kind: Kill, targets: []string{"minio"}, minMillis: 500, maxMillis: 5000},
	{weight: 3, kind: Pause, targets: []string{"minio"}, minMillis: 500, maxMillis: 6000},
	{weight: 14, kind: LoseCommits, targets: []string{"postgres"}, exclusion: "commits", minMillis: 1000, maxMillis: 4000, amount: [2]int{1, 6}},
	{weight: 5, kind: Cut, targets: []string{"to postgres", "to minio", "to broker-0", "to broker-1", "to broker-2"}},
	{weight: 5, kind: Down, targets: []string{"to postgres", "to minio", "to broker-0", "to broker-1", "to broker-2"},
		exclusion: "network", minMillis: 500, maxMillis: 4000},
	{weight: 5, kind: Hold, targets: []string{"to postgres", "to minio", "to broker-0", "to broker-1", "to broker-2"},
		exclusion: "network", minMillis: 500, maxMillis: 7000},
	{weight: 5, kind: Delay, targets: []string{"to postgres", "to minio", "to broker-0", "to broker-1", "to broker-2"},
		exclusion: "network", minMillis: 2000, maxMillis: 8000, amount: [2]int{5, 120}},
}

// The shape of a schedule.
const (
	minFaults = 9
	maxFaults  = 16
	quietStart  = 800 * time.Millisecond // for the first products to exist
	minGap    = time.Second            // between two faults of a lane, so that the target has come back
	minLength = time.Second
)

// Plan is what goes wrong in a run of seed, with clients that are at work for length.
func Plan(seed uint64, length time.Duration) Schedule {
	random := rand.New(rand.NewPCG(seed, 0x5eed)) //nolint:gosec // it is to be repeatable
	s := Schedule{Seed: seed, Length: max(length, minLength)}
	busy := map[string][][2]time.Duration{} // by lane
	wanted := minFaults + random.IntN(maxFaults-minFaults+1)
	for range 4 * wanted { // some do not fit
		if len(s.Faults) == wanted {
			break
		}
		f, lane := draw(random, s.Length)
		from, to := f.At-minGap, f.At+f.For+minGap
		if slices.ContainsFunc(busy[lane], func(b [2]time.Duration) bool { return from < b[1] && b[0] < to }) {
			continue
		}
		busy[lane] = append(busy[lane], [2]time.Duration{f.At, f.At + f.For})
		s.Faults = append(s.Faults, f)
	}
	slices.SortStableFunc(s.Faults, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	return s
}

// draw draws a fault that ends within length.
func draw(random *rand.Rand, length time.Duration) (f Fault, lane string) {
	total := 0
	for _, c := range faultOptions {
		total += c.weight
	}
	ticket := random.IntN(total)
	var c faultOption
	for _, c = range faultOptions {
		if ticket < c.weight {
			break
		}
		ticket -= c.weight
	}
	f = Fault{Kind: c.kind, Target: c.targets[random.IntN(len(c.targets))]}
	f.For = time.Duration(c.minMillis+random.IntN(c.maxMillis-c.minMillis+1)) * time.Millisecond
	f.For = min(f.For, length/2)
	span := length - f.For - quietStart
	f.At = quietStart + max(0, time.Duration(random.Int64N(max(1, int64(span)))).Truncate(time.Millisecond))
	f.Amount = c.amount[0] + random.IntN(c.amount[1]-c.amount[0]+1)
	lane = c.exclusion
	if lane == "" {
		lane = f.Target
	}
	return f, lane
}
