package postgres_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestCanary(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "samples_are_selected_images", run: samplesAreSelected},
		{name: "attempt_has_a_prefix_with_a_scheduled_deletion", run: sampleAttempt},
		{name: "last_attempt_alone_writes_an_outcome", run: sampleSuperseded},
		{name: "sample_of_a_suspended_backfill_waits", run: sampleSuspended},
		{name: "sample_ends_with_its_image_or_after_many_attempts", run: sampleFails},
		{name: "postponed_attempt_counts_or_not", run: samplePostponed},
	})
}

// canary is a running canary of ready images of one product.
type canary struct {
	*fixture
	product catalog.Product
	b       backfill.Backfill
	ids     []string // of the samples
}

const (
	sampleBudget = time.Minute
	sampleKeep   = 7 * 24 * time.Hour
)

// newCanary starts a canary of so many images, and sends their samples.
func newCanary(f *fixture, images int) *canary {
	f.Helper()
	p := pipeline.Default()
	f.Must(f.store.SavePipeline(f.Context(), p.Hash(), p.Document()), "save")
	b, err := f.store.ProposeBackfill(f.Context(), backfill.Backfill{
		Pipeline: "default", ManagedBy: backfill.CLI, TargetHash: p.Hash(), State: backfill.Proposed, Pace: backfill.DefaultPace(),
	}, 10)
	f.Must(err, "propose")
	c := &canary{fixture: f, product: f.Product(images), b: b}
	var refs []backfill.ImageRef
	for i := range images {
		img := f.ready(c.product.ID, i, "old")
		refs = append(refs, backfill.ImageRef{ProductID: c.product.ID, ImageID: img.ID})
	}
	f.takeDue(f)
	_, err = f.store.StartCanary(f.Context(), b.Name(), refs, func(b *backfill.Backfill, now time.Time) error {
		b.Canary = backfill.Canary{State: backfill.CanaryRunning, Samples: images, StartedAt: now}
		return nil
	})
	f.Must(err, "start")
	sent, err := f.store.SendSamples(f.Context(), b.ID, 100, time.Hour)
	f.Must(err, "send")
	f.Same(sent, images, "sent")
	for _, m := range f.takeDue(f) {
		body, err := event.Decode[event.ImageCanary](m)
		f.Must(err, "decode")
		if m.Topic != event.TopicBackfill || body.BackfillID != b.ID || body.PipelineHash != p.Hash() || body.SourceURL == "" {
			f.Errorf("sent %s with %+v", m.Topic, body)
		}
		c.ids = append(c.ids, m.ID)
	}
	return c
}

// begin begins a sample, which has to succeed.
func (c *canary) begin(i int) backfill.SampleAttempt {
	c.Helper()
	a, err := c.store.BeginSample(c.Context(), c.ids[i], sampleBudget, sampleKeep)
	c.Must(err, "begin")
	return a
}

// wantDone reports a sample that begins.
func (c *canary) wantDone(i int, when string) {
	c.Helper()
	if a, err := c.store.BeginSample(c.Context(), c.ids[i], sampleBudget, sampleKeep); !errors.Is(err, catalog.ErrDone) {
		c.Errorf("%s: began %+v, %v", when, a, err)
	}
}

func (c *canary) samples() []backfill.CanarySample {
	c.Helper()
	list, err := c.store.Samples(c.Context(), c.b.ID)
	c.Must(err, "read samples")
	return list
}

// set edits the backfill.
func (c *canary) set(fn func(b *backfill.Backfill)) {
	c.Helper()
	_, err := c.store.EditBackfill(c.Context(), c.b.Name(), func(b *backfill.Backfill, _ time.Time) error { fn(b); return nil })
	c.Must(err, "edit")
}

func samplesAreSelected(f *fixture) {
	p := f.Product(4)
	for i, output := range []string{"old", "new", "old", "old"} {
		f.ready(p.ID, i, output)
	}
	b := backfill.Backfill{TargetHash: "target", TargetOutput: "new", Selection: backfill.Selection{Kind: backfill.Renditions}}
	var ids []int64
	for _, img := range p.Images[:3] {
		ids = append(ids, int64(img.ID))
	}
	got, err := f.store.PickSamples(f.Context(), b, outputs(), ids, 10)
	f.Must(err, "pick")
	want := map[catalog.ImageID]bool{p.Images[0].ID: true, p.Images[2].ID: true}
	if len(got) != 2 || !want[got[0].ImageID] || !want[got[1].ImageID] || got[0].ProductID != p.ID {
		f.Errorf("got %+v, want the two images of those ids that differ", got)
	}
	got, err = f.store.PickSamples(f.Context(), b, outputs(), ids, 1)
	f.Must(err, "pick")
	f.Same(len(got), 1, "limited")
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Images[0].OriginalKey = ""
		return catalog.Change{}
	})
	skips := b
	skips.OnMissing = backfill.SkipMissing
	got, err = f.store.PickSamples(f.Context(), skips, outputs(), ids, 10)
	f.Must(err, "pick")
	if len(got) != 1 || got[0].ImageID != p.Images[2].ID {
		f.Errorf("got %+v, want the image that has an original", got)
	}
	f.Delete(p.ID)
	got, err = f.store.PickSamples(f.Context(), b, outputs(), ids, 10)
	f.Must(err, "pick")
	f.Same(len(got), 0, "of a deleted product")
}

func sampleAttempt(f *fixture) {
	c := newCanary(f, 1)
	img := f.Load(c.product.ID).Images[0]
	a := c.begin(0)
	if !strings.HasPrefix(a.Prefix, fmt.Sprintf("canary/%d/%d-", c.b.ID, img.ID)) || !strings.HasSuffix(a.Prefix, "/") {
		f.Errorf("the prefix is %s", a.Prefix)
	}
	if prefix, image, ok := catalog.PrefixOf(a.Prefix + "full.jpg"); prefix != a.Prefix || image != img.ID || !ok {
		f.Errorf("the auditor takes it for %q of image %d, %v", prefix, image, ok)
	}
	want := backfill.SampleAttempt{
		ID: c.ids[0], BackfillID: c.b.ID, ImageID: img.ID, ProductID: c.product.ID, UserID: c.product.UserID, Number: 1,
		Prefix: a.Prefix, SourceURL: img.SourceURL, SourceSHA256: img.SourceSHA256, MadeBy: img.PipelineHash,
		Original:   catalog.Original{Key: img.OriginalKey, SHA256: img.SourceSHA256, Bytes: img.SourceBytes},
		Renditions: img.Renditions,
	}
	f.Same(a, want, "the attempt")
	due := scalar[string](f.T, connect(f.T, f.dsn), `SELECT image_id || ' ' || (due_at > now() + interval '167 hours')
		FROM scheduled_deletions WHERE prefix = $1`, a.Prefix)
	f.Same(due, fmt.Sprintf("%d true", img.ID), "the scheduled deletion")
	orphans, err := f.store.Unreferenced(f.Context(), []catalog.ScheduledDeletion{{Prefix: a.Prefix, ImageID: img.ID}})
	f.Must(err, "find references")
	f.Same(len(orphans), 0, "orphans")

	outcome := backfill.SampleOutcome{
		BytesBefore: 10, BytesAfter: 9, Scored: true, ScoreBefore: 70, ScoreAfter: 71, CPUSeconds: 0.5,
		Example: backfill.SampleFiles{
			KeyBefore: "a", KeyAfter: "b", BytesBefore: 5, BytesAfter: 4, ScoreBefore: 69, ScoreAfter: 70,
		},
	}
	f.Must(f.store.EndSample(f.Context(), a, backfill.SampleDone, outcome), "end")
	ended := backfill.CanarySample{ImageID: img.ID, State: backfill.SampleDone, SampleOutcome: outcome}
	f.Same(c.samples(), []backfill.CanarySample{ended}, "outcome")
	f.Same(f.Load(c.product.ID).Images[0], img, "the image")
	c.wantDone(0, "with an outcome")
	if sent, err := f.store.SendSamples(f.Context(), c.b.ID, 100, 0); sent != 0 || err != nil {
		f.Errorf("%d samples with an outcome were sent, %v", sent, err)
	}
}

func sampleSuperseded(f *fixture) {
	c := newCanary(f, 1)
	first, second := c.begin(0), c.begin(0)
	if first.Prefix == second.Prefix || second.Number != 2 {
		f.Errorf("the second attempt is %+v", second)
	}
	err := f.store.EndSample(f.Context(), first, backfill.SampleDone, backfill.SampleOutcome{BytesAfter: 1})
	if !errors.Is(err, catalog.ErrSuperseded) {
		f.Errorf("the first ended: %v", err)
	}
	f.Must(f.store.PostponeSample(f.Context(), first, time.Hour, true), "postpone the first")
	f.Same(c.samples()[0].State, backfill.SampleSent, "state")
	f.Must(f.store.EndSample(f.Context(), second, backfill.SampleChanged, backfill.SampleOutcome{}), "end")
	err = f.store.EndSample(f.Context(), second, backfill.SampleDone, backfill.SampleOutcome{})
	if !errors.Is(err, catalog.ErrSuperseded) || c.samples()[0].State != backfill.SampleChanged {
		f.Errorf("it ended twice: %v", err)
	}
	c.set(func(b *backfill.Backfill) { b.Canary.State = backfill.CanaryComplete })
	f.Must(f.store.DropSamples(f.Context(), c.b.ID), "drop")
	c.wantDone(0, "dropped")
}

func sampleSuspended(f *fixture) {
	c := newCanary(f, 1)
	c.set(func(b *backfill.Backfill) { b.Suspended = backfill.ByOperator })
	c.wantDone(0, "suspended")
	f.Same(c.samples()[0].State, backfill.SampleWaiting, "state")
	c.set(func(b *backfill.Backfill) { b.Suspended = backfill.NotSuspended })
	sent, err := f.store.SendSamples(f.Context(), c.b.ID, 100, time.Hour)
	f.Must(err, "send")
	f.Same(sent, 1, "sent again")
	for name, fn := range map[string]func(b *backfill.Backfill){
		"running": func(b *backfill.Backfill) { b.State = backfill.Running },
		"stopped": func(b *backfill.Backfill) { b.State, b.Canary.State = backfill.Approved, backfill.CanaryStopped },
	} {
		c.set(fn)
		c.wantDone(0, name)
	}
}

func sampleFails(f *fixture) {
	c := newCanary(f, 2)
	for range backfill.MaxSampleAttempts {
		c.begin(0)
	}
	c.wantDone(0, "after many attempts")
	f.Delete(c.product.ID)
	c.wantDone(1, "without its image")
	codes := map[media.Code]bool{}
	for _, s := range c.samples() {
		f.Same(s.State, backfill.SampleFailed, "state")
		codes[s.Code] = true
	}
	f.Same(codes, map[media.Code]bool{media.WorkerCrashed: true, backfill.SampleGone: true}, "codes")
}

func samplePostponed(f *fixture) {
	c := newCanary(f, 1)
	for _, step := range []struct {
		counts bool
		number int // of the next attempt
	}{{false, 1}, {true, 2}, {false, 2}} {
		f.Must(f.store.PostponeSample(f.Context(), c.begin(0), 0, step.counts), "postpone")
		sent, err := f.store.SendSamples(f.Context(), c.b.ID, 100, time.Hour)
		f.Must(err, "send")
		f.Same(sent, 1, "sent")
		a := c.begin(0)
		f.Same(a.Number, step.number, "attempt")
		f.Must(f.store.PostponeSample(f.Context(), a, 0, false), "postpone")
	}
	unbegun := backfill.SampleAttempt{ID: c.ids[0]}
	f.Must(f.store.PostponeSample(f.Context(), unbegun, time.Hour, false), "postpone before it begins")
	sent, err := f.store.SendSamples(f.Context(), c.b.ID, 100, time.Hour)
	f.Must(err, "send")
	f.Same(sent, 1, "a sample that waits already keeps its time")
	f.Must(f.store.PostponeSample(f.Context(), unbegun, time.Hour, false), "postpone before it begins")
	sent, err = f.store.SendSamples(f.Context(), c.b.ID, 100, time.Hour)
	f.Must(err, "send")
	f.Same(sent, 0, "sent within its delay")
}
