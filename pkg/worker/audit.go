package worker

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

	"vitrine.io/pkg/catalog"
)

// Auditor compares the bucket with the rows, all the time and a little at a time, in two rounds that know nothing of each
// other. One lists the bucket: what nothing speaks for becomes an intent, and so the compensator's. The other goes through
// the pictures that are ready: one whose objects are missing is asked for anew.
//
// It deletes nothing. It stops, and tells, when the bucket is marked as another database's or as nobody's, or when more of
// it seems to be orphaned, or missing, than accidents leave behind: then the rows are wrong, or the bucket as a whole is. It
// goes on by itself once that is no longer so.
//
// Several may run; each look is one process's, and where the next one goes on stands in the database.
type Auditor struct {
	AuditParts
	cfg     AuditConfig
	metrics *auditMetrics
}

// AuditParts are what an Auditor is made of.
type AuditParts struct {
	Turns   Turns
	Books   Books
	Bucket  Listing
	Catalog Remaker
	Now     func() time.Time // to tell how old an object is
	Log     *zap.Logger
}

// Remaker asks for a picture anew; *catalog.Service says what Remake means.
type Remaker interface {
	Remake(ctx context.Context, product catalog.ProductID, image catalog.ImageID, which catalog.Selection,
		delay time.Duration) error
}

// NewAuditor returns an Auditor.
func NewAuditor(parts AuditParts, cfg AuditConfig, reg prometheus.Registerer) *Auditor {
	return &Auditor{AuditParts: parts, cfg: cfg, metrics: newAuditMetrics(reg)}
}

// Run audits until ctx ends, if it is enabled.
func (a *Auditor) Run(ctx context.Context) error {
	if !a.cfg.Enabled {
		<-ctx.Done()
		return nil
	}
	var both sync.WaitGroup
	for _, r := range []round{{"objects", a.lookAtObjects}, {"rows", a.lookAtRows}} {
		both.Go(func() {
			every(ctx, a.cfg.Interval, a.Log.With(zap.String("round", r.name)), a.metrics.errors,
				func(ctx context.Context) (bool, error) { return false, a.turn(ctx, r) })
		})
	}
	both.Wait()
	return nil
}

// round goes through something from its beginning to its end, look by look.
type round struct {
	name string
	look func(ctx context.Context, cursor string) (next string, err error) // next is "" at the end
}

// stopped is why an auditor does not dare to go on.
type stopped struct{ reason, detail string }

func (s *stopped) Error() string { return s.reason + ": " + s.detail }

// The reasons to stop.
const (
	noOwner        = "no_owner"
	otherOwner     = "other_owner"
	tooManyOrphans = "too_many_orphans"
	tooManyMissing = "too_many_missing"
)

// turn takes a turn, if one is due and nobody was quicker, and looks.
func (a *Auditor) turn(ctx context.Context, r round) error {
	cursor, mine, err := a.Turns.TakeTurn(ctx, r.name, a.cfg.Interval)
	if err != nil {
		return fmt.Errorf("take turn: %w", err)
	}
	a.metrics.stopped.DeletePartialMatch(prometheus.Labels{"round": r.name}) // whoever looks next says it again
	if !mine {
		return nil
	}
	next, err := r.look(ctx, cursor)
	var stop *stopped
	if errors.As(err, &stop) {
		a.metrics.stopped.WithLabelValues(r.name, stop.reason).Set(1)
		a.Log.Error("audit stopped", zap.String("round", r.name), zap.String("reason", stop.reason), zap.Error(err))
		return nil
	} else if err != nil {
		return err
	}
	wait := a.cfg.Interval
	if next == "" {
		wait = a.cfg.Rest
	}
	if err := a.Turns.SaveCursor(ctx, r.name, next, wait); err != nil {
		return fmt.Errorf("save cursor: %w", err)
	}
	return nil
}

// ours returns nil if the bucket is marked as this database's.
func (a *Auditor) ours(ctx context.Context) error {
	id, _, err := a.Turns.Installation(ctx)
	if err != nil {
		return fmt.Errorf("read installation: %w", err)
	}
	owner, err := a.Bucket.Owner(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read owner: %w", err)
	case owner == "":
		return &stopped{noOwner, "the bucket is marked as nobody's; vitrine setup marks it"}
	case owner != id:
		return &stopped{otherOwner, fmt.Sprintf("the bucket is marked as installation %s's, and this is %s", owner, id)}
	default:
		return nil
	}
}

// allPictures is the prefix of all objects that pictures have.
const allPictures = "products/"

// lookAtObjects looks at one batch of objects. The bucket is listed first and the rows are asked after: whatever is stored
// has been spoken for since before it was stored, so what nobody speaks for now is nobody's for good.
func (a *Auditor) lookAtObjects(ctx context.Context, after string) (next string, err error) {
	if err := a.ours(ctx); err != nil {
		return "", err
	}
	objects, more, err := a.Bucket.Page(ctx, allPictures, after, a.cfg.Batch)
	if err != nil {
		return "", fmt.Errorf("list objects: %w", err)
	}
	if more && len(objects) > 0 {
		objects = complete(objects)
		next = objects[len(objects)-1].Key
	}
	attempts, foreign := byAttempt(objects)
	a.metrics.listed.Add(float64(len(objects)))
	if err := a.judge(ctx, attempts); err != nil {
		return "", err
	}
	if len(foreign) > 0 {
		a.metrics.foreign.Add(float64(len(foreign)))
		a.Log.Warn("the bucket holds objects that are not ours", zap.Int("objects", len(foreign)),
			zap.String("first", foreign[0]))
	}
	return next, nil
}

// judge makes intents of the attempts that nothing speaks for.
func (a *Auditor) judge(ctx context.Context, attempts []attempt) error {
	var old []catalog.Intent
	for _, at := range attempts {
		if a.Now().Sub(at.youngest) >= a.cfg.MinAge {
			old = append(old, catalog.Intent{Prefix: at.prefix, ImageID: at.image, Due: a.cfg.Grace})
		}
	}
	if len(old) == 0 {
		return nil
	}
	orphans, err := a.Books.Unreferenced(ctx, old)
	if err != nil {
		return fmt.Errorf("look for references: %w", err)
	}
	if a.cfg.tooMany(len(orphans), len(attempts)) {
		return &stopped{tooManyOrphans, fmt.Sprintf("nothing speaks for %d of %d attempts, the first being %s",
			len(orphans), len(attempts), orphans[0].Prefix)}
	}
	if len(orphans) == 0 {
		return nil
	}
	condemned, err := a.Books.Condemn(ctx, orphans)
	if err != nil {
		return fmt.Errorf("condemn orphans: %w", err)
	}
	a.metrics.orphans.Add(float64(condemned))
	for _, o := range orphans {
		a.Log.Warn("orphaned objects will be deleted", zap.String("prefix", o.Prefix), zap.Int64("image_id", int64(o.ImageID)))
	}
	return nil
}

// attempt is what a listing shows of one attempt at a picture.
type attempt struct {
	prefix   string
	image    catalog.ImageID
	youngest time.Time
}

// byAttempt groups objects, which are in the order of their keys, and returns the keys that no attempt made.
func byAttempt(objects []Object) (attempts []attempt, foreign []string) {
	for _, o := range objects {
		prefix, image, ok := catalog.PrefixOf(o.Key)
		if !ok {
			foreign = append(foreign, o.Key)
			continue
		}
		if last := len(attempts) - 1; last < 0 || attempts[last].prefix != prefix {
			attempts = append(attempts, attempt{prefix: prefix, image: image})
		}
		if at := &attempts[len(attempts)-1]; o.Modified.After(at.youngest) {
			at.youngest = o.Modified
		}
	}
	return attempts, foreign
}

// complete leaves out the last attempt of a batch that others follow: the rest of it may be among them. An attempt that
// fills the batch alone is taken as it is.
func complete(objects []Object) []Object {
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
