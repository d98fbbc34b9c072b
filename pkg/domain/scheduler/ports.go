package scheduler

import (
	"context"

	"vitrine.io/pkg/domain/catalog"
)

// Flow is the jobs of one user at one host.
type Flow struct {
	User catalog.UserID
	Host string // as catalog.HostKey returns it
}

// Waiting is a flow with jobs that are due and not released.
type Waiting struct {
	Flow
	Due int // at most Search.MaxDue
}

// Grant is how many jobs of a flow are released.
type Grant struct {
	Flow
	Jobs int
}

// Search bounds the flows that a round reads.
type Search struct {
	Windows  Windows
	After    map[catalog.Class]Flow // where the search of a class starts; zero: at its first flow
	MaxFlows int                    // of a class
	MaxHosts int                    // of a user
	MaxDue   int                    // counted for a flow
}

// Round is the result of a round.
type Round struct {
	Acquired bool // false: another scheduler runs a round
	InFlight int  // before the round, without the jobs of backfills
	Released map[catalog.Class]int
	Next     map[catalog.Class]Flow // where the next search of a class starts; zero: at its first flow
}

// Jobs are the jobs of images.
type Jobs interface {
	// Release runs one round, in one transaction: it counts the jobs in flight, calls plan for each class in order of
	// precedence, with the flows that have due jobs, and releases the jobs that plan grants, those that are due longest
	// first. Flows of hosts with a full window may be missing. It may release fewer jobs than are granted, because it skips
	// those that another transaction has locked. The jobs of backfills are not in flight for the other classes, since they
	// may wait for the workers for long. plan is called for them only while a backfill is open.
	Release(ctx context.Context, s Search, plan func(class catalog.Class, waiting []Waiting, inFlight map[Flow]int) []Grant,
	) (Round, error)

	// CountWaiting returns how many jobs of each class are not released, whether due or not.
	CountWaiting(ctx context.Context) (map[catalog.Class]int, error)
}
