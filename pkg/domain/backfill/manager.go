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
	b := m.backfill(p)
	b.Plan = plan
	if err := m.Pipelines.SavePipeline(ctx, b.TargetHash, p.Target.Document()); err != nil {
		return Backfill{}, fmt.Errorf("save pipeline: %w", err)
	}
	if b, err = m.Backfills.ProposeBackfill(ctx, b, historyLimit); err != nil {
		return Backfill{}, fmt.Errorf("propose backfill: %w", err)
	}
	return b, nil
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

// Cancel ends a backfill. Images that it has made stay as they are.
func (m Manager) Cancel(ctx context.Context, name string) (Backfill, error) {
	return m.edit(ctx, name, func(b *Backfill, now time.Time) error { return b.cancel(now) })
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
