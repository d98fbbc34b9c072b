package main

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The kinds of faults. Each has a duration, after which the fault is undone.
const (
	Kill        Kind = "kill -9"           // SIGKILL; started at the end
	Stop        Kind = "stop"              // SIGTERM; started at the end
	Pause       Kind = "pause"             // SIGSTOP; SIGCONT at the end
	KillCodec   Kind = "kill codec"        // SIGKILL to the children of a worker; no duration
	Cut         Kind = "cut"               // open connections are reset; no duration
	Down        Kind = "down"              // open and new connections are reset
	Hold        Kind = "hold"              // traffic is blocked and arrives late
	Delay       Kind = "delay"             // traffic is delayed
	LoseCommits Kind = "lose COMMITs of"   // Postgres commits, and the reply is lost
	KillMaster  Kind = "kill -9 master of" // SIGKILL to a Redis master; its replica takes over
	PauseMaster Kind = "pause master of"   // SIGSTOP to a Redis master; it may resume after a failover

	ResolverAway Kind = "resolver away:" // no name of a source resolves
	EgressAway   Kind = "egress away:"   // no source can be reached

	Promote    Kind = "promote the standby:" // the primary ends and never returns; its standby is promoted at the end
	Flood      Kind = "flood from"           // one user posts many images
	AbuseLists Kind = "abuse lists of"       // lists that are expensive or hopeless
)

// Fault is one fault of a schedule.
type Fault struct {
	At     time.Duration // since the clients started
	For    time.Duration
	Kind   Kind
	Target string
	Amount int // LoseCommits: maximum number of COMMITs; Delay: milliseconds; Flood: maximum number of images
}

// String is the fault as one line.
func (f Fault) String() string {
	line := fmt.Sprintf("%6.2fs  %s %s", f.At.Seconds(), f.Kind, f.Target)
	switch f.Kind {
	case LoseCommits:
		line += fmt.Sprintf(", at most %d", f.Amount)
	case Delay:
		line += fmt.Sprintf(" by %d ms", f.Amount)
	case Flood:
		line += fmt.Sprintf(", at most %d images", f.Amount)
	}
	if f.For > 0 {
		line += fmt.Sprintf(", for %.2fs", f.For.Seconds())
	}
	return line
}

// Schedule is the faults of a run.
type Schedule struct {
	Seed   uint64
	Length time.Duration // how long the clients are active
	Faults []Fault       // ordered by At; all end within Length and a few seconds
}

// has reports whether the schedule contains a fault of that kind.
func (s Schedule) has(kind Kind) bool {
	return slices.ContainsFunc(s.Faults, func(f Fault) bool { return f.Kind == kind })
}

// ID is a hash of the schedule, by which a result names it.
func (s Schedule) ID() string {
	h := fnv.New64a()
	_ = s.Print(h) // writing to a hash does not fail
	return fmt.Sprintf("%016x", h.Sum64())
}

// Print writes the schedule, one line for each fault.
func (s Schedule) Print(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "seed %d: %d faults, clients active for %s\n", s.Seed, len(s.Faults), s.Length); err != nil {
		return err
	}
	for _, f := range s.Faults {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	return nil
}

// faultOption describes faults of one kind that a schedule may contain.
type faultOption struct {
	weight               int // relative to the others; in onceOptions the probability in percent
	kind                 Kind
	targets              []string
	exclusion            string   // faults with the same exclusion never overlap; empty: the target
	alsoExcludes         []string // further exclusions
	minMillis, maxMillis int      // duration
	amount               [2]int   // minimum and maximum of Fault.Amount
	notBefore            time.Duration
}

// How the resolver or egress is away.
const (
	servfail  = "SERVFAIL"
	noAnswers = "no answers"
	resets    = "connections are reset"
	noPackets = "no packets"
)

// How the primary is lost.
const (
	primaryStopped = "primary stopped"
	primaryKilled  = "primary killed"
	standbyCutOff  = "cut off until the primary is killed"
)

// onceOptions lists the faults that a run has at most once. They are drawn before the others. While lists are abused, no
// fault affects reads of the cache, so that a read that fails does so because of the lists.
var onceOptions = []faultOption{
	{weight: 35, kind: Promote, targets: []string{primaryStopped, primaryKilled, standbyCutOff}, exclusion: "postgres",
		minMillis: 300, maxMillis: 8000, notBefore: 3 * time.Second},
	{weight: 35, kind: AbuseLists, targets: []string{"both apis"},
		alsoExcludes: []string{"api-0", "api-1", "redis", "postgres", "commits", "network", "to postgres"},
		minMillis:    7000, maxMillis: 10000, notBefore: 3 * time.Second},
	{weight: 35, kind: Flood, targets: []string{"one user"}, minMillis: 8000, maxMillis: 12000, amount: [2]int{150, 300},
		notBefore: 2 * time.Second},
}

// faultOptions lists all possible faults. A pause of a worker or an api may exceed the session timeout of its consumer
// group, so that it resumes as a zombie. At most one broker and one Redis master are unavailable at a time, because with
// two of three brokers down the system may stop until they return.
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
	{weight: 9, kind: ResolverAway, targets: []string{servfail, noAnswers}, exclusion: "sources", minMillis: 3000, maxMillis: 9000},
	{weight: 9, kind: EgressAway, targets: []string{resets, noPackets}, exclusion: "sources", minMillis: 6000, maxMillis: 12000,
		notBefore: 6 * time.Second},
}

// The shape of a schedule.
const (
	minFaults  = 9
	maxFaults  = 16
	quietStart = 800 * time.Millisecond // time in which the first products are created
	minGap     = time.Second            // between two faults of one exclusion, so that the target has recovered
	minLength  = time.Second
)

// Plan returns the schedule of a seed for clients that are active for length, at least a second. The same arguments always
// give the same schedule.
func Plan(seed uint64, length time.Duration) Schedule {
	random := rand.New(rand.NewPCG(seed, 0x5eed)) //nolint:gosec // must be reproducible
	s := Schedule{Seed: seed, Length: max(length, minLength)}
	busy := occupation{}
	wanted := minFaults + random.IntN(maxFaults-minFaults+1)
	for _, c := range onceOptions {
		if random.IntN(100) >= c.weight {
			continue
		}
		for range 4 {
			if f := c.draw(random, s.Length); busy.add(f, c) {
				s.Faults = append(s.Faults, f)
				break
			}
		}
	}
	for range 8 * wanted { // some overlap others and are dropped
		if len(s.Faults) == wanted {
			break
		}
		c := choose(random)
		if f := c.draw(random, s.Length); busy.add(f, c) {
			s.Faults = append(s.Faults, f)
		}
	}
	slices.SortStableFunc(s.Faults, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	return s
}

// occupation has the times of faults by exclusion.
type occupation map[string][][2]time.Duration

// add adds a fault, or returns false if it overlaps another with one of its exclusions.
func (o occupation) add(f Fault, c faultOption) bool {
	exclusions := append([]string{cmp.Or(c.exclusion, f.Target)}, c.alsoExcludes...)
	from, to := f.At-minGap, f.At+f.For+minGap
	for _, e := range exclusions {
		if slices.ContainsFunc(o[e], func(b [2]time.Duration) bool { return from < b[1] && b[0] < to }) {
			return false
		}
	}
	for _, e := range exclusions {
		o[e] = append(o[e], [2]time.Duration{f.At, f.At + f.For})
	}
	return true
}

// choose returns a random option, by weight.
func choose(random *rand.Rand) (c faultOption) {
	total := 0
	for _, c := range faultOptions {
		total += c.weight
	}
	choice := random.IntN(total)
	for _, c = range faultOptions {
		if choice < c.weight {
			break
		}
		choice -= c.weight
	}
	return c
}

// draw returns a random fault of the option that ends within length.
func (c faultOption) draw(random *rand.Rand, length time.Duration) Fault {
	f := Fault{Kind: c.kind, Target: c.targets[random.IntN(len(c.targets))]}
	f.For = time.Duration(c.minMillis+random.IntN(c.maxMillis-c.minMillis+1)) * time.Millisecond
	f.For = min(f.For, length/2)
	start := min(max(quietStart, c.notBefore), max(quietStart, length-f.For))
	span := length - f.For - start
	f.At = start + max(0, time.Duration(random.Int64N(max(1, int64(span)))).Truncate(time.Millisecond))
	f.Amount = c.amount[0] + random.IntN(c.amount[1]-c.amount[0]+1)
	return f
}
