package backfill

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
)

// historyLimit is how many ended backfills are kept.
const historyLimit = 10

// ManagerDeps are the dependencies of a Manager.
type ManagerDeps struct {
	Backfills Backfills
	Images    Images
	Sampler   Sampler
	Pipelines catalog.Pipelines
	Canaries  Canaries // of StartCanary; nil if that is not used
}

// Manager estimates, proposes and changes backfills, for one who manages them.
type Manager struct {
	ManagerDeps
	By ManagedBy
}

// Proposal is what a backfill is to do.
type Proposal struct {
	Target      *pipeline.Revision
	Selection   Selection
	Pace        Pace
	OnMissing   OnMissing // "": FetchMissing
	ResourceUID string
	Generation  int64
}

func (m Manager) backfill(p Proposal) Backfill {
	return Backfill{
		Pipeline: p.Target.Name(), ManagedBy: m.By, ResourceUID: p.ResourceUID, Generation: p.Generation,
		TargetHash: p.Target.Hash(), TargetOutput: p.Target.Spec().OutputHash(), Selection: p.Selection, State: Proposed,
		Pace: p.Pace, OnMissing: cmp.Or(p.OnMissing, FetchMissing),
	}
}

// Estimate returns what a backfill would cost. It returns a fault.Invalid that lists every wrong field.
func (m Manager) Estimate(ctx context.Context, p Proposal) (Plan, error) {
	fields := append(p.Pace.Check(), m.backfill(p).OnMissing.Check()...)
	if p.Selection.Kind == ByHand {
		fields = append(fields, p.Selection.Check()...)
	}
	if err := fault.InvalidFields(fields); err != nil {
		return Plan{}, err
	}
	outputs, err := m.Images.Outputs(ctx)
	if err != nil {
		return Plan{}, fmt.Errorf("read pipelines: %w", err)
	}
	_, last, err := m.Sampler.Extent(ctx)
	if err != nil {
		return Plan{}, fmt.Errorf("read extent: %w", err)
	}
	ids := sampleIDs(int64(last), rand.Int64N)
	s, err := m.Sampler.Sample(ctx, m.backfill(p), outputs, ids)
	if err != nil {
		return Plan{}, fmt.Errorf("read sample: %w", err)
	}
	rate, err := m.expectedRate(ctx, p.Pace.Rate)
	if err != nil {
		return Plan{}, err
	}
	return newPlan(s, int64(len(ids)), int64(last), rate, time.Now()), nil
}

// expectedRate returns the images a second that a backfill reaches: its rate, or that of the last complete one if it is
// lower.
func (m Manager) expectedRate(ctx context.Context, rate float64) (float64, error) {
	list, err := m.Backfills.ListBackfills(ctx)
	if err != nil {
		return 0, fmt.Errorf("list backfills: %w", err)
	}
	for _, b := range list {
		if b.State == Complete && b.Done >= minJudged && b.EndedAt.After(b.StartedAt) {
			return min(rate, float64(b.Done)/b.EndedAt.Sub(b.StartedAt).Seconds()), nil
		}
	}
	return rate, nil
}

// Propose estimates a backfill and adds it as a proposal. Errors are those of Estimate and of Backfills.ProposeBackfill.
func (m Manager) Propose(ctx context.Context, p Proposal) (Backfill, error) {
	plan, err := m.Estimate(ctx, p)
	if err != nil {
		return Backfill{}, err
	}
	return m.propose(ctx, p, plan)
}

// ProposeSome is Propose unless there is no image to make: then proposed is false.
func (m Manager) ProposeSome(ctx context.Context, p Proposal) (b Backfill, proposed bool, err error) {
	plan, err := m.Estimate(ctx, p)
	if err != nil || plan.Empty(p.OnMissing) {
		return Backfill{}, false, err
	}
	b, err = m.propose(ctx, p, plan)
	return b, err == nil, err
}

func (m Manager) propose(ctx context.Context, p Proposal, plan Plan) (Backfill, error) {
	b := m.backfill(p)
	b.Plan = plan
	err := m.Pipelines.SavePipeline(ctx, b.TargetHash, p.Target.Document())
	if err != nil {
		return Backfill{}, fmt.Errorf("save pipeline: %w", err)
	}
	if b, err = m.Backfills.ProposeBackfill(ctx, b, historyLimit); err != nil {
		return Backfill{}, fmt.Errorf("propose backfill: %w", err)
	}
	return b, nil
}

// Saved returns the pipeline that was saved under a hash: each api saves the one that comes into force. fault.NotFound if
// there is none.
func (m Manager) Saved(ctx context.Context, hash string) (*pipeline.Revision, error) {
	document, err := m.Pipelines.Pipeline(ctx, hash)
	if err != nil {
		return nil, fmt.Errorf("read pipeline %s: %w", hash, err)
	}
	p, err := pipeline.ParseStored(document, hash)
	if err != nil {
		return nil, fmt.Errorf("parse pipeline %s: %w", hash, err)
	}
	return pipeline.NewRevision(p), nil
}

// Find returns the backfill with that name, or fault.NotFound.
func (m Manager) Find(ctx context.Context, name string) (Backfill, error) {
	list, err := m.Backfills.ListBackfills(ctx)
	if err != nil {
		return Backfill{}, fmt.Errorf("list backfills: %w", err)
	}
	for _, b := range list {
		if b.Name() == name {
			return b, nil
		}
	}
	return Backfill{}, fault.New(fault.NotFound, "backfill_not_found", "there is no backfill with the name "+name)
}

// Approve lets a proposed backfill start, if hash is that of its target. Approved backfills of the same pipeline that have
// not started are superseded. It returns fault.Invalid with the path approved_hash if the target is another one,
// fault.Conflict if the state does not allow it, and fault.NotFound.
func (m Manager) Approve(ctx context.Context, name, hash string) (Backfill, error) {
	approved, err := m.edit(ctx, name, func(b *Backfill, now time.Time) error { return b.approve(hash, now) })
	if err != nil {
		return Backfill{}, err
	}
	list, err := m.Backfills.ListBackfills(ctx)
	if err != nil {
		return Backfill{}, fmt.Errorf("list backfills: %w", err)
	}
	for _, other := range list {
		if other.State != Approved || other.Pipeline != approved.Pipeline || other.ID >= approved.ID {
			continue
		}
		_, err := m.Backfills.EditBackfill(ctx, other.Name(), func(b *Backfill, now time.Time) error {
			if b.State == Approved {
				b.end(Superseded, approved.Name()+" was approved", now)
			}
			return nil
		})
		if err != nil {
			return Backfill{}, fmt.Errorf("supersede %s: %w", other.Name(), err)
		}
	}
	return approved, nil
}

// Suspend stops a backfill until it is resumed. With force it may be that of a resource.
func (m Manager) Suspend(ctx context.Context, name string, force bool) (Backfill, error) {
	if force {
		return m.Backfills.EditBackfill(ctx, name, func(b *Backfill, _ time.Time) error { return b.suspend() })
	}
	return m.edit(ctx, name, func(b *Backfill, _ time.Time) error { return b.suspend() })
}

// Resume undoes a suspension.
func (m Manager) Resume(ctx context.Context, name string) (Backfill, error) {
	return m.edit(ctx, name, func(b *Backfill, _ time.Time) error { return b.resume() })
}

// SetPace changes how fast and when a backfill runs. It returns a fault.Invalid that lists every wrong field.
func (m Manager) SetPace(ctx context.Context, name string, p Pace) (Backfill, error) {
	if err := fault.InvalidFields(p.Check()); err != nil {
		return Backfill{}, err
	}
	return m.edit(ctx, name, func(b *Backfill, _ time.Time) error { return b.setPace(p) })
}

// Cancel ends a backfill. Images that it has made stay as they are.
func (m Manager) Cancel(ctx context.Context, name string) (Backfill, error) {
	return m.edit(ctx, name, func(b *Backfill, now time.Time) error { return b.cancel(now) })
}

// maxPicks is how many sets of random ids are searched for the samples of a canary.
const maxPicks = 20

// StartCanary starts a canary of up to so many images that the backfill selects. The walk in the api processes carries it
// out. It returns fault.Invalid with the path samples if the number is out of range, fault.Conflict if the state does not
// allow a canary, one is running, or no image was found, and fault.NotFound.
func (m Manager) StartCanary(ctx context.Context, name string, samples int) (Backfill, error) {
	var check fault.Checker
	check.Range(samples >= 1 && samples <= MaxSamples, "samples", "a number from 1 to %d", MaxSamples)
	if err := fault.InvalidFields(check.Fields()); err != nil {
		return Backfill{}, err
	}
	b, err := m.Find(ctx, name)
	if err != nil {
		return Backfill{}, err
	}
	start := func(b *Backfill, samples int, now time.Time) error {
		if err := b.checkManager(m.By); err != nil {
			return err
		}
		return b.startCanary(samples, now)
	}
	trial := b
	if err := start(&trial, samples, time.Time{}); err != nil { // before the search, and again with the row locked
		return Backfill{}, err
	}
	images, err := m.pick(ctx, b, samples)
	if err != nil {
		return Backfill{}, err
	}
	if len(images) == 0 {
		return Backfill{}, fault.New(fault.Conflict, "nothing_selected",
			"samples: "+b.Name()+" selects no image among the random ones that were looked at")
	}
	b, err = m.Canaries.StartCanary(ctx, name, images, func(b *Backfill, now time.Time) error {
		return start(b, len(images), now)
	})
	if err != nil {
		return Backfill{}, fmt.Errorf("start canary: %w", err)
	}
	return b, nil
}

// pick returns up to limit images that b selects. It looks at all ids of a small installation, and else at sets of random
// ids until it has found enough.
func (m Manager) pick(ctx context.Context, b Backfill, limit int) ([]ImageRef, error) {
	outputs, err := m.Images.Outputs(ctx)
	if err != nil {
		return nil, fmt.Errorf("read pipelines: %w", err)
	}
	_, last, err := m.Sampler.Extent(ctx)
	if err != nil {
		return nil, fmt.Errorf("read extent: %w", err)
	}
	var images []ImageRef
	seen := map[catalog.ImageID]bool{}
	for range maxPicks {
		ids := sampleIDs(int64(last), rand.Int64N)
		found, err := m.Canaries.PickSamples(ctx, b, outputs, ids, limit-len(images))
		if err != nil {
			return nil, fmt.Errorf("pick samples: %w", err)
		}
		for _, img := range found {
			if !seen[img.ImageID] {
				seen[img.ImageID] = true
				images = append(images, img)
			}
		}
		if len(images) == limit || len(ids) == int(last) {
			break
		}
	}
	return images, nil
}

// edit changes a backfill that m manages.
func (m Manager) edit(ctx context.Context, name string, fn func(*Backfill, time.Time) error) (Backfill, error) {
	b, err := m.Backfills.EditBackfill(ctx, name, func(b *Backfill, now time.Time) error {
		if err := b.checkManager(m.By); err != nil {
			return err
		}
		return fn(b, now)
	})
	if err != nil {
		return Backfill{}, fmt.Errorf("change backfill: %w", err)
	}
	return b, nil
}
