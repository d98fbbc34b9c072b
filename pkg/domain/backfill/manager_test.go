package backfill_test

import (
	"context"
	"testing"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
)

// fakeSampler has an extent, and the same sample for all ids.
type fakeSampler struct {
	last    catalog.ImageID
	matched int64
}

func (f *fakeSampler) Extent(context.Context) (catalog.ProductID, catalog.ImageID, error) {
	return 1, f.last, nil
}

func (f *fakeSampler) Sample(context.Context, backfill.Backfill, map[string]string, []int64) (backfill.Sample, error) {
	return backfill.Sample{Matched: f.matched}, nil
}

func TestManager(t *testing.T) {
	t.Parallel()
	t.Run("nothing_is_proposed_for_certainly_no_image", testManagerProposeSome)
	t.Run("pace_changes_until_the_end", testManagerSetPace)
	t.Run("saved_pipeline_is_that_of_the_hash", testManagerSaved)
}

func testManagerProposeSome(t *testing.T) {
	t.Parallel()
	sampler := &fakeSampler{last: 100}
	m := backfill.Manager{By: backfill.Resource, ManagerDeps: backfill.ManagerDeps{
		Backfills: newMemory(), Images: &fakeImages{}, Sampler: sampler, Pipelines: noPipelines{},
	}}
	p := backfill.Proposal{
		Target: pipeline.NewRevision(pipeline.Default()), Selection: backfill.Selection{Kind: backfill.Renditions},
		Pace: backfill.DefaultPace(), ResourceUID: "u", Generation: 3,
	}
	propose := func(want bool) {
		t.Helper()
		b, proposed, err := m.ProposeSome(t.Context(), p)
		if err != nil || proposed != want || proposed && b.Name() != "default-1" {
			t.Errorf("got %s, %v, %v, want %v", b.Name(), proposed, err, want)
		}
	}
	propose(false)
	sampler.last = 1_000_000 // a sample without a match, although there may be images
	propose(true)
	if _, _, err := m.ProposeSome(t.Context(), p); !fault.Is(err, fault.Conflict) {
		t.Errorf("the same generation again: %v", err)
	}
}

func testManagerSetPace(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 1, func(*backfill.Pace) {})
	m := backfill.Manager{By: backfill.CLI, ManagerDeps: backfill.ManagerDeps{Backfills: w.memory}}
	pace := backfill.DefaultPace()
	pace.Rate, pace.TimeZone = 3, "Europe/Berlin"
	if b, err := m.SetPace(t.Context(), w.name, pace); err != nil || b.Rate != 3 || w.current().TimeZone != "Europe/Berlin" {
		t.Errorf("got %+v, %v", b.Pace, err)
	}
	pace.Rate = 0
	_, err := m.SetPace(t.Context(), w.name, pace)
	if !fault.Is(err, fault.Invalid) || fault.From(err).Fields[0].Path != "rate" {
		t.Errorf("a rate of 0: %v", err)
	}
	if _, err := m.Cancel(t.Context(), w.name); err != nil {
		t.Fatal(err)
	}
	if _, err := m.SetPace(t.Context(), w.name, backfill.DefaultPace()); !fault.Is(err, fault.Conflict) {
		t.Errorf("of a cancelled one: %v", err)
	}
}

func testManagerSaved(t *testing.T) {
	t.Parallel()
	r := pipeline.NewRevision(pipeline.Default())
	m := backfill.Manager{ManagerDeps: backfill.ManagerDeps{Pipelines: onePipeline{r.Document()}}}
	if got, err := m.Saved(t.Context(), r.Hash()); err != nil || got.Hash() != r.Hash() {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := m.Saved(t.Context(), "other"); !fault.Is(err, fault.Invalid) {
		t.Errorf("under another hash: %v", err)
	}
	m.Pipelines = noPipelines{}
	if _, err := m.Saved(t.Context(), r.Hash()); !fault.Is(err, fault.NotFound) {
		t.Errorf("one that was not saved: %v", err)
	}
}

// onePipeline has the same document under every hash.
type onePipeline struct{ document []byte }

func (onePipeline) SavePipeline(context.Context, string, []byte) error { return nil }

func (p onePipeline) Pipeline(context.Context, string) ([]byte, error) { return p.document, nil }
