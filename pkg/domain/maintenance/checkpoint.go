package maintenance

import (
	"context"
	"time"
)

// Checkpoints store the progress of the auditor's passes. A pass goes once through everything that a scan covers. It is
// divided into shards. A shard belongs to one process at a time, for a lease.
type Checkpoints interface {
	// Pass returns the state of the last pass over the scan. It has no shards if there was none.
	Pass(ctx context.Context, scan string) (Pass, error)
	// StartPass replaces the last pass over the scan by a new one with a shard for each range. It does nothing if the last
	// pass is not finished, or began less than every ago.
	StartPass(ctx context.Context, scan string, ranges []Range, every time.Duration) (started bool, err error)
	// Acquire returns the shard of the scan that has been due longest, and makes it due after lease: no other call returns
	// it before. acquired is false if no shard is due.
	Acquire(ctx context.Context, scan string, lease time.Duration) (shard Shard, acquired bool, err error)
	// Save saves the position within a shard and makes the shard due after wait. It does nothing if the shard was acquired
	// again since.
	Save(ctx context.Context, shard Shard, at Position, wait time.Duration) error
	// Installation returns the id of this installation, and its epoch: how often its database was restored.
	Installation(ctx context.Context) (id string, epoch int64, err error)
}

// Pass is the state of a pass.
type Pass struct {
	Shards, Unfinished int
	Progress           float64       // the share that is done, from 0 to 1
	Age                time.Duration // since it began
	Stopped            []string      // the reasons why shards are stopped, without duplicates
}

// Range is a part of what a scan covers: the cursors above After, up to and including Until, or to the end if Until is "".
type Range struct{ After, Until string }

// Shard is a part of a pass that a process has acquired.
type Shard struct {
	Range
	Scan     string
	Number   int
	Shards   int           // of the pass
	Cursor   string        // the last one saved; After at first
	Progress float64       // the last one saved
	Lease    string        // names this acquisition
	PassAge  time.Duration // since the pass began
}

// Position is how far a shard has come.
type Position struct {
	Cursor   string
	Progress float64 // the share of the shard that is done, from 0 to 1
	Done     bool
	Stopped  string // why the shard does not continue, or forgets no missing originals; "" if it does both
}
