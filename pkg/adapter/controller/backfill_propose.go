package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
)

// propose makes the backfill for the last change of the pipeline's hash: first the row, of which there is one for each
// generation, then the resource, then the note in the pipeline's status. After a crash in between, the next reconcile finds
// the row and does the rest.
func (d *driver) propose(ctx context.Context, s *scene) error {
	target := s.inForce()
	if target == nil || s.parsed.Spec.Backfill.Policy == pipeline.Never {
		return nil
	}
	before, generation := lastChange(s.published.History)
	if len(before) == 0 || s.published.Backfill != nil && s.published.Backfill.Generation >= generation {
		return nil
	}
	uid := string(s.pipeline.GetUID())
	at := slices.IndexFunc(s.rows, func(b backfill.Backfill) bool {
		return b.ResourceUID == uid && b.Generation == generation
	})
	note := ProposedBackfill{Generation: generation}
	if at < 0 {
		b, proposed, err := d.proposeChange(ctx, before, backfill.Proposal{
			Target: target, Pace: backfill.DefaultPace(), OnMissing: toOnMissing(s.parsed.Spec.Backfill.OnMissing),
			ResourceUID: uid, Generation: generation,
		})
		if err != nil {
			return err
		}
		if !proposed {
			return d.note(ctx, s, note)
		}
		s.rows = append(s.rows, b)
		at = len(s.rows) - 1
	}
	b := s.rows[at]
	note.Name = b.Name()
	if !b.State.Ended() {
		if err := d.create(ctx, b); err != nil {
			return err
		}
		d.events.Eventf(s.pipeline.DeepCopy(), nil, corev1.EventTypeNormal, "BackfillProposed", "Propose",
			"%s is proposed for about %.0f images", note.Name, b.Plan.Images.Value)
	}
	return d.note(ctx, s, note)
}

// lastChange returns the hashes that were published before the present one, the newest first, and the generation with which
// that was published. There is no hash if the history does not have it.
func lastChange(history []PublishedRevision) (before []string, generation int64) {
	if len(history) == 0 {
		return nil, 0
	}
	present := history[0].Hash
	n := slices.IndexFunc(history, func(p PublishedRevision) bool { return p.Hash != present })
	if n < 0 {
		return nil, 0
	}
	for _, p := range history[n:] {
		if p.Hash != present && !slices.Contains(before, p.Hash) {
			before = append(before, p.Hash)
		}
	}
	return before, history[n-1].Generation
}

// proposeChange proposes the backfill for a change from the first of the pipelines that was in force. proposed is false if
// no image differs.
func (d *driver) proposeChange(ctx context.Context, before []string, p backfill.Proposal,
) (b backfill.Backfill, proposed bool, err error) {
	for _, hash := range before {
		from, err := d.manager.Saved(ctx, hash)
		if fault.Is(err, fault.NotFound) {
			continue // it was published, and no api has used it
		}
		if err != nil {
			return b, false, err
		}
		var affected bool
		if p.Selection, affected = backfill.Compare(from.Spec(), p.Target.Spec()).Selection(); !affected {
			return b, false, nil
		}
		return d.manager.ProposeSome(ctx, p)
	}
	return b, false, nil
}

// create makes the resource of a row. Another one with its name is left from a database that was lost, since no number is
// given twice: it is deleted, and the next reconcile makes the right one.
func (d *driver) create(ctx context.Context, b backfill.Backfill) error {
	obj := newBackfillObject()
	obj.SetNamespace(d.cfg.Namespace)
	obj.SetName(b.Name())
	obj.SetLabels(map[string]string{
		"app.kubernetes.io/managed-by": fieldOwner, "app.kubernetes.io/part-of": "vitrine",
	})
	spec := map[string]any{"pipeline": map[string]any{"name": b.Pipeline}, "target": b.TargetHash}
	if b.OnMissing == backfill.SkipMissing {
		spec["onMissing"] = string(pipeline.SkipMissing)
	}
	obj.Object["spec"] = spec
	err := d.client.Create(ctx, obj, client.FieldOwner(fieldOwner))
	switch {
	case err == nil:
		return nil
	case !apierrors.IsAlreadyExists(err):
		return fmt.Errorf("create %s: %w", b.Name(), err)
	}
	present, err := d.resources(ctx, d.live)
	if err = errors.Join(err, present.unreadable); err != nil {
		return fmt.Errorf("compare the earlier %s: %w", b.Name(), err)
	}
	for _, r := range present.resources {
		if r.object.GetName() != b.Name() || r.is(b) {
			continue
		}
		uid := r.object.GetUID()
		if err := d.client.Delete(ctx, r.object, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete the earlier %s: %w", b.Name(), err)
		}
		return errors.New("deleted an earlier " + b.Name() + ", of another target")
	}
	return nil
}

// note records in the pipeline's status what followed from a change, so that it follows once.
func (d *driver) note(ctx context.Context, s *scene, note ProposedBackfill) error {
	obj := s.pipeline.DeepCopy()
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&note)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	if err := unstructured.SetNestedMap(obj.Object, fields, "status", "backfill"); err != nil {
		return fmt.Errorf("change status: %w", err)
	}
	err = d.client.Status().Patch(ctx, obj, client.MergeFrom(s.pipeline), client.FieldOwner(fieldOwner))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status: %w", err)
	}
	s.published.Backfill = &note
	return nil
}

// proposeSelected makes the row of a resource with a selector that has none yet, or completes the resource with the reason
// why it does not.
func (d *driver) proposeSelected(ctx context.Context, s *scene, r *resource) error {
	if r.byController() || r.spec.Pipeline.Name != d.cfg.Pipeline || r.object.GetDeletionTimestamp() != nil ||
		r.status.Backfill != "" || s.row(*r) != nil {
		return nil
	}
	b, err := d.proposeOne(ctx, s, r)
	switch {
	case fault.Is(err, fault.Invalid), fault.Is(err, fault.NotFound):
		r.refused = err
	case err != nil:
		return fmt.Errorf("propose %s: %w", r.object.GetName(), err)
	case b != nil:
		s.rows = append(s.rows, *b)
	}
	return nil
}

// ahead returns the name of a row of the pipeline that another proposal would supersede, at once or with its approval; "" if
// there is none.
func (s *scene) ahead() string {
	for _, b := range slices.Concat(s.rows, s.byCLI) {
		if b.State == backfill.Proposed || b.State == backfill.Approved {
			return b.Name()
		}
	}
	return ""
}

// proposeOne makes the row of a resource; nil while the pipeline is not in force, or while another backfill is ahead of it.
// It returns fault.Invalid for wrong fields, and fault.NotFound if the target is not known.
func (d *driver) proposeOne(ctx context.Context, s *scene, r *resource) (*backfill.Backfill, error) {
	pace, err := r.spec.Pace.toPace()
	if err != nil {
		return nil, err
	}
	selection := r.spec.Selector.toSelection()
	if err := fault.InvalidFields(renamed(selection.Check())); err != nil {
		return nil, err
	}
	target := s.inForce()
	switch {
	case r.spec.Target != "" && (target == nil || target.Hash() != r.spec.Target):
		if target, err = d.manager.Saved(ctx, r.spec.Target); err != nil {
			return nil, err
		}
	case target == nil:
		return nil, nil
	}
	if r.waitsFor = s.ahead(); r.waitsFor != "" {
		return nil, nil
	}
	b, err := d.manager.Propose(ctx, backfill.Proposal{
		Target: target, Selection: selection, Pace: pace, OnMissing: toOnMissing(r.spec.OnMissing),
		ResourceUID: string(r.object.GetUID()),
		Generation:  1, // target and selector are immutable: there is one for all generations
	})
	if err != nil {
		return nil, err
	}
	return &b, nil
}
