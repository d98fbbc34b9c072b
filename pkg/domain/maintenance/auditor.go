package maintenance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
)

// Auditor compares the bucket with the rows continuously, in batches, in two independent scans. One lists the bucket and
// schedules the deletion of objects that no row refers to. The other reads the ready images, and reprocesses those with
// missing objects.
//
// It deletes nothing itself. A scan stops, and reports why, if the bucket has no owner mark or that of another
// installation, or if more objects are orphaned or missing than [AuditorConfig] tolerates: the process is then probably
// connected to the wrong database or bucket. Each later batch repeats the check, and the scan continues when the reason
// no longer applies.
//
// Several may run: each scan belongs to one process at a time, and its position is stored in the database.
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
	Catalog     ImageReprocessor
	Now         func() time.Time // used only for the age of objects
	Log         *zap.Logger
}

// NewAuditor returns an Auditor and registers its metrics with reg.
func NewAuditor(deps AuditorDeps, cfg AuditorConfig, reg prometheus.Registerer) *Auditor {
	return &Auditor{AuditorDeps: deps, cfg: cfg, metrics: newAuditMetrics(reg)}
}

// Run runs both scans until ctx ends. If the auditor is disabled, it only waits for the end of ctx. It returns nil.
func (a *Auditor) Run(ctx context.Context) error {
	if !a.cfg.Enabled {
		<-ctx.Done()
		return nil
	}
	var both sync.WaitGroup
	for _, s := range []scan{{"objects", a.scanObjects}, {"rows", a.scanRows}} {
		both.Go(func() {
			_ = periodicTask{a.cfg.Interval, a.Log.With(zap.String("scan", s.name)), a.metrics.errors,
				func(ctx context.Context) (bool, error) { return false, a.next(ctx, s) }}.Run(ctx)
		})
	}
	both.Wait()
	return nil
}

// scan reads the bucket or the rows from the beginning to the end, in batches.
type scan struct {
	name  string
	batch func(ctx context.Context, cursor string) (next string, err error) // next is "" after the last batch
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
)

// next checks the scan's next batch, if it is due and no other process has acquired the scan.
func (a *Auditor) next(ctx context.Context, s scan) error {
	cursor, acquired, err := a.Checkpoints.Acquire(ctx, s.name, a.cfg.Interval)
	if err != nil {
		return fmt.Errorf("acquire scan: %w", err)
	}
	a.metrics.stopped.DeletePartialMatch(prometheus.Labels{"scan": s.name}) // only the process that has the scan sets it
	if !acquired {
		return nil
	}
	next, err := s.batch(ctx, cursor)
	var halt *haltError
	if errors.As(err, &halt) {
		a.metrics.stopped.WithLabelValues(s.name, halt.reason).Set(1)
		a.Log.Error("audit stopped", zap.String("scan", s.name), zap.String("reason", halt.reason), zap.Error(err))
		return nil
	} else if err != nil {
		return err
	}
	wait := a.cfg.Interval
	if next == "" {
		wait = a.cfg.Pause
	}
	if err := a.Checkpoints.SaveCursor(ctx, s.name, next, wait); err != nil {
		return fmt.Errorf("save cursor: %w", err)
	}
	return nil
}

// checkOwner returns nil if the owner mark of the bucket names this installation, a *haltError if it does not, or the
// error of a read.
func (a *Auditor) checkOwner(ctx context.Context) error {
	id, _, err := a.Checkpoints.Installation(ctx)
	if err != nil {
		return fmt.Errorf("read installation: %w", err)
	}
	owner, err := a.Bucket.Owner(ctx)
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

// imagesPrefix is the prefix of the objects of all images.
const imagesPrefix = "products/"

// scanObjects checks one batch of objects. It lists the bucket before it reads the rows. A row refers to the objects of
// an attempt before the first of them is stored, so an object that is listed and then has no reference never gets one.
func (a *Auditor) scanObjects(ctx context.Context, after string) (next string, err error) {
	if err := a.checkOwner(ctx); err != nil {
		return "", err
	}
	objects, more, err := a.Bucket.Page(ctx, imagesPrefix, after, a.cfg.Batch)
	if err != nil {
		return "", fmt.Errorf("list objects: %w", err)
	}
	if more && len(objects) > 0 {
		objects = dropPartialAttempt(objects)
		next = objects[len(objects)-1].Key
	}
	attempts, unrecognized := byAttempt(objects)
	a.metrics.listed.Add(float64(len(objects)))
	if err := a.scheduleOrphans(ctx, attempts); err != nil {
		return "", err
	}
	if len(unrecognized) > 0 {
		a.metrics.unrecognized.Add(float64(len(unrecognized)))
		a.Log.Warn("the bucket has objects that no attempt wrote", zap.Int("objects", len(unrecognized)),
			zap.String("first", unrecognized[0]))
	}
	return next, nil
}

// scheduleOrphans schedules the deletion of the attempts that no row refers to.
func (a *Auditor) scheduleOrphans(ctx context.Context, attempts []attempt) error {
	var old []catalog.ScheduledDeletion
	for _, at := range attempts {
		if a.Now().Sub(at.newest) >= a.cfg.MinAge {
			old = append(old, catalog.ScheduledDeletion{Prefix: at.prefix, ImageID: at.image, Delay: a.cfg.Grace})
		}
	}
	if len(old) == 0 {
		return nil
	}
	orphans, err := a.References.Unreferenced(ctx, old)
	if err != nil {
		return fmt.Errorf("find references: %w", err)
	}
	if a.cfg.tooMany(len(orphans), len(attempts)) {
		return &haltError{tooManyOrphans, fmt.Sprintf("no row refers to %d of %d attempts, the first being %s",
			len(orphans), len(attempts), orphans[0].Prefix)}
	}
	if len(orphans) == 0 {
		return nil
	}
	scheduled, err := a.References.ScheduleOrphans(ctx, orphans)
	if err != nil {
		return fmt.Errorf("schedule orphans: %w", err)
	}
	a.metrics.orphans.Add(float64(scheduled))
	for _, o := range orphans {
		a.Log.Warn("orphaned objects scheduled for deletion", zap.String("prefix", o.Prefix),
			zap.Int64("image_id", int64(o.ImageID)))
	}
	return nil
}

// attempt is the part of a listing that one attempt has stored.
type attempt struct {
	prefix string
	image  catalog.ImageID
	newest time.Time // when the newest of its objects was stored
}

// byAttempt groups objects, which are in the order of their keys, and returns the keys that no attempt wrote.
func byAttempt(objects []Object) (attempts []attempt, unrecognized []string) {
	for _, o := range objects {
		prefix, image, ok := catalog.PrefixOf(o.Key)
		if !ok {
			unrecognized = append(unrecognized, o.Key)
			continue
		}
		if last := len(attempts) - 1; last < 0 || attempts[last].prefix != prefix {
			attempts = append(attempts, attempt{prefix: prefix, image: image})
		}
		if at := &attempts[len(attempts)-1]; o.Modified.After(at.newest) {
			at.newest = o.Modified
		}
	}
	return attempts, unrecognized
}

// dropPartialAttempt removes the objects of the last attempt from a batch that is not the last one, because the next
// batch may contain the rest of that attempt. An attempt that fills the whole batch is kept.
func dropPartialAttempt(objects []Object) []Object {
	prefix, _, ok := catalog.PrefixOf(objects[len(objects)-1].Key)
	if !ok {
		return objects
	}
	begin := slices.IndexFunc(objects, func(o Object) bool { return strings.HasPrefix(o.Key, prefix) })
	if begin == 0 {
		return objects
	}
	return objects[:begin]
}
