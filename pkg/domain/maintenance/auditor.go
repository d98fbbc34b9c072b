package maintenance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Auditor compares the buckets with the rows continuously, in independent scans. One lists the bucket and schedules the
// deletion of objects that no row refers to; another does the same with the bucket of the originals. The third reads the
// ready images, reprocesses those with missing objects, and makes those whose original is missing forget it.
//
// A pass over a scan goes once through everything, in steps that are bounded in items and in time. It is divided into
// shards, whose positions are stored in the database. Any number of processes share a pass: each step acquires a shard for
// a lease. A step that fails, or whose process crashes, is repeated after the lease, and the other shards continue. The
// steps follow a schedule, so that a pass takes [AuditorConfig].Pass, for any size, as far as the maximum rates allow.
//
// It deletes nothing itself. A shard stops, and reports why, if the bucket has no owner mark or that of another
// installation, or if more objects of a step are orphaned or missing than [AuditorConfig] tolerates: the process is then
// probably connected to the wrong database or bucket. Each later step repeats the check, and the shard continues when the
// reason no longer applies.
type Auditor struct {
	AuditorDeps
	cfg     AuditorConfig
	metrics *auditMetrics
}

// AuditorDeps are the dependencies of an Auditor.
type AuditorDeps struct {
	Checkpoints Checkpoints
	References  References
	Bucket      BucketReader
	Originals   BucketReader // the bucket of the originals; nil: none is configured
	Catalog     AuditedCatalog
	Now         func() time.Time // for the age of objects and the time of a step
	Log         *zap.Logger
}

// NewAuditor returns an Auditor and registers its metrics with reg.
func NewAuditor(deps AuditorDeps, cfg AuditorConfig, reg prometheus.Registerer) *Auditor {
	metrics := newAuditMetrics(reg)
	metrics.target.Set(cfg.Pass.Seconds())
	return &Auditor{AuditorDeps: deps, cfg: cfg, metrics: metrics}
}

// Run runs all scans until ctx ends. If the auditor is disabled, it only waits for the end of ctx. It returns nil.
func (a *Auditor) Run(ctx context.Context) error {
	if !a.cfg.Enabled {
		<-ctx.Done()
		return nil
	}
	images := listing{a, a.Bucket, imagesPrefix}
	scans := []scan{
		{"objects", a.cfg.MaxObjectRate, images.plan, images.scan},
		{"rows", a.cfg.MaxRowRate, a.planRows, a.scanRows},
	}
	if a.Originals != nil {
		originals := listing{a, a.Originals, originalsPrefix}
		scans = append(scans, scan{"originals", a.cfg.MaxObjectRate, originals.plan, originals.scan})
	}
	var all sync.WaitGroup
	for _, s := range scans {
		all.Go(func() {
			_ = periodicTask{a.cfg.Interval, a.Log.With(zap.String("scan", s.name)), a.metrics.errors,
				func(ctx context.Context) (bool, error) { return a.next(ctx, s) }}.Run(ctx)
		})
	}
	all.Wait()
	return nil
}

// scan goes through a bucket or the rows.
type scan struct {
	name string
	rate float64 // maximum items a second, over all shards
	plan func(ctx context.Context) ([]Range, error)
	// step continues the shard at its cursor. It begins no work after the time until.
	step func(ctx context.Context, shard Shard, until time.Time) (stepResult, error)
}

// stepResult is how far a step has come.
type stepResult struct {
	Position
	items int // listed objects, or rows read
}

// haltError is the error of a batch that must stop its scan, with the reason.
type haltError struct{ reason, detail string }

func (e *haltError) Error() string { return e.reason + ": " + e.detail }

// The reasons to stop.
const (
	noOwner        = "no_owner"
	otherOwner     = "other_owner"
	tooManyOrphans = "too_many_orphans"
	tooManyMissing = "too_many_missing"

	// tooManyOriginalsMissing stops only the repair of originals: the shard continues.
	tooManyOriginalsMissing = "too_many_originals_missing"
)

// next does one step of a shard that is due, if there is one. Before that it starts a pass if one is due. more reports
// whether it did a step: other shards may be due, too.
func (a *Auditor) next(ctx context.Context, s scan) (more bool, err error) {
	if err := a.startPass(ctx, s); err != nil {
		return false, err
	}
	shard, acquired, err := a.Checkpoints.Acquire(ctx, s.name, a.cfg.Lease)
	if err != nil {
		return false, fmt.Errorf("acquire shard: %w", err)
	}
	if !acquired {
		return false, nil
	}
	begin := a.Now()
	leased, cancel := context.WithTimeout(ctx, a.cfg.Lease)
	defer cancel()
	done, err := s.step(leased, shard, begin.Add(a.cfg.Lease/2))
	var halt *haltError
	if errors.As(err, &halt) {
		a.Log.Error("audit stopped", zap.String("scan", s.name), zap.Int("shard", shard.Number),
			zap.String("reason", halt.reason), zap.Error(err))
		return true, a.save(ctx, shard, Position{shard.Cursor, shard.Progress, false, halt.reason}, a.cfg.Lease)
	} else if err != nil {
		return false, fmt.Errorf("shard %d: %w", shard.Number, err)
	}
	wait := pause(shard, done.Position, done.items, s.rate, a.cfg.Pass, a.Now().Sub(begin))
	return true, a.save(ctx, shard, done.Position, wait)
}

func (a *Auditor) save(ctx context.Context, shard Shard, at Position, wait time.Duration) error {
	if err := a.Checkpoints.Save(ctx, shard, at, wait); err != nil {
		return fmt.Errorf("save shard %d: %w", shard.Number, err)
	}
	return nil
}

// startPass starts a pass over the scan if the last one is finished and its target duration has passed. It also updates the
// metrics of the scan, which are those of the database and so equal in all processes.
func (a *Auditor) startPass(ctx context.Context, s scan) error {
	pass, err := a.Checkpoints.Pass(ctx, s.name)
	if err != nil {
		return fmt.Errorf("read pass: %w", err)
	}
	a.metrics.setPass(s.name, pass)
	if pass.Unfinished > 0 || pass.Shards > 0 && pass.Age < a.cfg.Pass {
		return nil
	}
	ranges, err := s.plan(ctx)
	if err != nil {
		return fmt.Errorf("plan pass: %w", err)
	}
	started, err := a.Checkpoints.StartPass(ctx, s.name, ranges, a.cfg.Pass)
	if err != nil {
		return fmt.Errorf("start pass: %w", err)
	}
	if started {
		a.Log.Info("audit pass started", zap.String("scan", s.name), zap.Int("shards", len(ranges)))
	}
	return nil
}

// checkOwner returns nil if the owner mark of a bucket names this installation, a *haltError if it does not, or the
// error of a read.
func (a *Auditor) checkOwner(ctx context.Context, bucket BucketReader) error {
	id, _, err := a.Checkpoints.Installation(ctx)
	if err != nil {
		return fmt.Errorf("read installation: %w", err)
	}
	owner, err := bucket.Owner(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read owner: %w", err)
	case owner == "":
		return &haltError{noOwner, "the bucket has no owner mark; vitrine setup writes it"}
	case owner != id:
		return &haltError{otherOwner, fmt.Sprintf("the owner mark of the bucket names installation %s; this is %s", owner, id)}
	default:
		return nil
	}
}
