package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
)

// resourceHistory is how many ended ImageBackfills that the controller has made are kept.
const resourceHistory = 10

// driver makes ImageBackfills for changes of the pipeline, and carries out in Postgres what all ImageBackfills ask for. One
// reconcile looks at all of them, because a row without a resource belongs to none of them.
type driver struct {
	cfg     Config
	bounds  pipeline.Bounds
	client  client.Client
	live    client.Reader // reads the API server instead of the cache
	events  events.EventRecorder
	manager *backfill.Manager
	metrics *metrics
	log     *zap.Logger
	now     func() metav1.Time

	// Only Reconcile uses them, which runs once at a time.
	written map[types.UID]time.Time // the last write of a status
	tried   map[int64]time.Time     // the last search for samples that has found none, by the id of the row
}

// scene is what a reconcile has read.
type scene struct {
	rows      []backfill.Backfill // of the controller and its pipeline
	byCLI     []backfill.Backfill // of its pipeline, and of the command line
	pipeline  *unstructured.Unstructured
	published Status            // of the pipeline
	parsed    pipeline.Pipeline // the zero value if it is not valid
	listing
}

// listing is the ImageBackfills of the namespace.
type listing struct {
	resources  []resource
	unreadable error // of those that could not be decoded, which may be those of rows; nil if there are none
}

// Reconcile implements reconcile.Reconciler. Each step may be repeated at any time. Without Postgres it changes nothing.
func (d *driver) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	err := d.reconcile(ctx)
	if err != nil {
		d.metrics.backfillFailures.Inc()
	}
	return reconcile.Result{RequeueAfter: d.cfg.Poll}, err
}

func (d *driver) reconcile(ctx context.Context) error {
	s, err := d.read(ctx)
	if err != nil {
		return err
	}
	// What is there is approved before anything is proposed, which would supersede it.
	var errs []error
	var unplanned []resource
	for _, r := range s.resources {
		if s.row(r) == nil {
			unplanned = append(unplanned, r)
			continue
		}
		errs = append(errs, d.drive(ctx, s, r))
	}
	errs = append(errs, d.propose(ctx, s), d.cancelOrphans(ctx, s))
	for _, r := range unplanned {
		errs = append(errs, d.proposeSelected(ctx, s, &r), d.drive(ctx, s, r))
	}
	errs = append(errs, d.prune(ctx, s))
	d.forget(s)
	return errors.Join(errs...)
}

func (d *driver) read(ctx context.Context) (*scene, error) {
	all, err := d.manager.Backfills.ListBackfills(ctx)
	if err != nil {
		return nil, fmt.Errorf("list backfills: %w", err)
	}
	s := &scene{}
	for _, b := range all {
		switch {
		case b.Pipeline != d.cfg.Pipeline:
		case b.ManagedBy == backfill.Resource:
			s.rows = append(s.rows, b)
		default:
			s.byCLI = append(s.byCLI, b)
		}
	}
	if s.listing, err = d.resources(ctx, d.client); err != nil {
		return nil, err
	}
	if s.unreadable != nil { // of another version of the definition
		d.log.Warn("an ImageBackfill is not readable: no backfill is cancelled", zap.Error(s.unreadable))
	}
	obj := newObject()
	err = d.client.Get(ctx, client.ObjectKey{Namespace: d.cfg.Namespace, Name: d.cfg.Pipeline}, obj)
	switch {
	case apierrors.IsNotFound(err):
		return s, nil
	case err != nil:
		return nil, fmt.Errorf("read pipeline: %w", err)
	}
	s.pipeline = obj
	s.published, _ = statusOf(obj) // one that cannot be decoded is made anew, and says that nothing is in force
	if text, err := document(obj); err == nil {
		s.parsed, _ = d.bounds.Parse([]byte(text)) // if it is refused, the zero value is right
	}
	return s, nil
}

// resources lists the ImageBackfills of the namespace, the oldest first.
func (d *driver) resources(ctx context.Context, from client.Reader) (listing, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.FromAPIVersionAndKind(pipeline.APIVersion, BackfillKind+"List"))
	if err := from.List(ctx, list, client.InNamespace(d.cfg.Namespace)); err != nil {
		return listing{}, fmt.Errorf("list ImageBackfills: %w", err)
	}
	var l listing
	for i := range list.Items {
		r, err := decodeBackfill(&list.Items[i])
		if err != nil {
			l.unreadable = errors.Join(l.unreadable, err)
			continue
		}
		l.resources = append(l.resources, r)
	}
	slices.SortStableFunc(l.resources, func(x, y resource) int {
		return x.object.GetCreationTimestamp().Compare(y.object.GetCreationTimestamp().Time)
	})
	return l, nil
}

// row returns the row of a resource, or nil.
func (s *scene) row(r resource) *backfill.Backfill {
	if i := slices.IndexFunc(s.rows, r.is); i >= 0 {
		return &s.rows[i]
	}
	return nil
}

// inForce returns the revision of the pipeline if all instances have it in force, or else nil.
func (s *scene) inForce() *pipeline.Revision {
	if s.pipeline == nil || s.parsed.Metadata.Name == "" {
		return nil
	}
	for _, kind := range []string{Published, InForce} {
		if !isTrueAt(s.published.Conditions, kind, s.pipeline.GetGeneration()) {
			return nil
		}
	}
	revision := pipeline.NewRevision(s.parsed)
	if revision.Hash() != s.published.Hash {
		return nil
	}
	return revision
}

// isTrueAt reports whether a condition is true and about that generation.
func isTrueAt(conditions []metav1.Condition, kind string, generation int64) bool {
	return slices.ContainsFunc(conditions, func(c metav1.Condition) bool {
		return c.Type == kind && c.Status == metav1.ConditionTrue && c.ObservedGeneration == generation
	})
}

// cancelOrphans cancels backfills whose resource is gone. The cache may be behind, so the API server is asked again. A
// resource that is not readable may be that of any row: none is cancelled until it is.
func (d *driver) cancelOrphans(ctx context.Context, s *scene) error {
	var orphans []backfill.Backfill
	if s.unreadable == nil {
		orphans = s.orphans(s.resources)
	}
	if len(orphans) == 0 {
		return nil
	}
	now, err := d.resources(ctx, d.live)
	if err = errors.Join(err, now.unreadable); err != nil {
		return err
	}
	var errs []error
	for _, b := range s.orphans(now.resources) {
		if !slices.ContainsFunc(orphans, func(o backfill.Backfill) bool { return o.ID == b.ID }) {
			continue
		}
		if _, err := d.manager.Cancel(ctx, b.Name()); err != nil && !fault.Is(err, fault.Conflict) { // or it has ended since
			errs = append(errs, fmt.Errorf("cancel %s: %w", b.Name(), err))
			continue
		}
		d.log.Info("backfill cancelled: its resource is gone", zap.String("backfill", b.Name()))
	}
	return errors.Join(errs...)
}

// orphans returns the rows that have not ended and are of none of the resources. A row for the present change of the
// pipeline may not have its resource yet.
func (s *scene) orphans(resources []resource) []backfill.Backfill {
	var orphans []backfill.Backfill
	for _, b := range s.rows {
		made := s.published.Backfill != nil && s.published.Backfill.Generation >= b.Generation
		pending := s.pipeline != nil && b.ResourceUID == string(s.pipeline.GetUID()) && !made &&
			s.parsed.Spec.Backfill.Policy != pipeline.Never
		if !b.State.Ended() && !pending && !slices.ContainsFunc(resources, func(r resource) bool { return r.is(b) }) {
			orphans = append(orphans, b)
		}
	}
	return orphans
}

// prune deletes the oldest ended ImageBackfills that the controller has made.
func (d *driver) prune(ctx context.Context, s *scene) error {
	var ended []resource
	for _, r := range s.resources {
		if r.byController() && r.spec.Pipeline.Name == d.cfg.Pipeline && backfill.State(r.status.State).Ended() {
			ended = append(ended, r)
		}
	}
	slices.SortFunc(ended, func(x, y resource) int { return y.number() - x.number() })
	var errs []error
	for _, r := range ended[min(len(ended), resourceHistory):] {
		uid := r.object.GetUID()
		err := d.client.Delete(ctx, r.object, client.Preconditions{UID: &uid})
		if client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", r.object.GetName(), err))
		}
	}
	return errors.Join(errs...)
}

// number returns the number in the name of a resource of the controller.
func (r resource) number() int {
	_, number, _ := backfill.ParseName(r.object.GetName())
	return number
}

// forget removes the times of writes of resources that are gone.
func (d *driver) forget(s *scene) {
	for uid := range d.written {
		if !slices.ContainsFunc(s.resources, func(r resource) bool { return r.object.GetUID() == uid }) {
			delete(d.written, uid)
		}
	}
}
