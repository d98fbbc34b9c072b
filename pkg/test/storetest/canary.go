package storetest

import (
	"errors"
	"fmt"
	"time"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
)

// fullCanary returns a report in which every field is set.
func fullCanary(at time.Time) backfill.Canary {
	return backfill.Canary{
		State: backfill.CanaryComplete, Samples: 9, Done: 5, Failed: 3, Changed: 1, Scored: 4, BytesBefore: 100, BytesAfter: 90,
		ScoreBefore: 70.5, ScoreAfter: 71.25, CPUSeconds: 2.5, Failures: map[media.Code]int{media.Timeout: 3},
		Examples: []backfill.CanaryExample{{
			ImageID: 7, Before: "https://a/b", After: "https://a/c", BytesBefore: 10, BytesAfter: 9, ScoreBefore: 60, ScoreAfter: 61,
		}},
		StartedAt: at, EndedAt: at,
	}
}

func canaryIsReadBack(f *backfills) {
	b := f.propose(f.draft("default"), 10)
	b = f.set(b, func(b *backfill.Backfill) { b.Canary = fullCanary(b.CreatedAt) })
	f.same(f.list()[0], b, "every field of the canary")
	f.same(f.list()[0], f.set(b, func(*backfill.Backfill) {}), "after an edit of something else")
}

// startCanary starts a canary of the images with the ids from 1 to last.
func (f *backfills) startCanary(b backfill.Backfill, last catalog.ImageID, result error) error {
	f.Helper()
	var images []backfill.ImageRef
	for id := catalog.ImageID(1); id <= last; id++ {
		images = append(images, backfill.ImageRef{ProductID: 1, ImageID: id})
	}
	_, err := f.Canaries.StartCanary(f.Context(), b.Name(), images, func(b *backfill.Backfill, now time.Time) error {
		b.Canary = backfill.Canary{State: backfill.CanaryRunning, Samples: int(last), StartedAt: now}
		return result
	})
	return err
}

// samples returns the images of the samples in the order in which they are listed, with their states.
func (f *backfills) samples(b backfill.Backfill) string {
	f.Helper()
	list, err := f.Canaries.Samples(f.Context(), b.ID)
	f.must(err)
	text := ""
	for _, s := range list {
		text += fmt.Sprintf("%d %s ", s.ImageID, s.State)
	}
	return text
}

// send sends samples and reports another number of them than want.
func (f *backfills) send(b backfill.Backfill, inFlight int, lost time.Duration, want int) {
	f.Helper()
	sent, err := f.Canaries.SendSamples(f.Context(), b.ID, inFlight, lost)
	f.must(err)
	if sent != want {
		f.Errorf("%d samples were sent, want %d", sent, want)
	}
}

func canaryStartIsAtomic(f *backfills) {
	b := f.propose(f.draft("a"), 10)
	failure := errors.New("no")
	if err := f.startCanary(b, 3, failure); !errors.Is(err, failure) {
		f.Errorf("got %v", err)
	}
	if got := f.samples(b); got != "" || f.list()[0].Canary.State != backfill.NoCanary {
		f.Errorf("after the error: %q, %+v", got, f.list()[0].Canary)
	}
	f.must(f.startCanary(b, 3, nil))
	if got := f.samples(b); got != "1 waiting 2 waiting 3 waiting " {
		f.Errorf("got %q", got)
	}
	if c := f.list()[0].Canary; c.State != backfill.CanaryRunning || c.Samples != 3 || c.StartedAt.IsZero() {
		f.Errorf("got %+v", c)
	}
	f.send(b, 10, time.Hour, 3)
	f.must(f.startCanary(b, 2, nil))
	if got := f.samples(b); got != "1 waiting 2 waiting " {
		f.Errorf("another canary does not replace the samples: %q", got)
	}
}

func samplesAreSentUpToLimit(f *backfills) {
	b := f.propose(f.draft("a"), 10)
	other := f.propose(f.draft("b"), 10)
	f.must(f.startCanary(b, 3, nil))
	f.must(f.startCanary(other, 1, nil))
	f.send(b, 2, time.Hour, 2)
	f.send(b, 2, time.Hour, 0)
	f.send(b, 3, 0, 1) // it is due again at once
	f.send(b, 3, time.Hour, 1)
	f.send(b, 3, time.Hour, 0)
	if got := f.samples(other); got != "1 waiting " {
		f.Errorf("of the other: %q", got)
	}
}

func samplesAreWork(f *backfills) {
	b := f.propose(f.draft("a"), 10)
	f.must(f.startCanary(b, 1, nil))
	w := f.acquire()
	if w.ID != b.ID || !w.Sampled || w.Canary.State != backfill.CanaryRunning || w.State != backfill.Proposed {
		f.Errorf("got %+v", w)
	}
	f.must(f.Canaries.DropSamples(f.Context(), b.ID)) // of an earlier canary, by a step that was slow
	if got := f.samples(b); got == "" {
		f.Error("the samples of a running canary were dropped")
	}
	w.Canary.State, w.Canary.Done = backfill.CanaryComplete, 1
	f.save(w, 0, true)
	w = f.acquire()
	if !w.Sampled || w.Canary.Done != 1 {
		f.Errorf("after the end: got %+v", w)
	}
	f.must(f.Canaries.DropSamples(f.Context(), b.ID))
	f.must(f.Canaries.DropSamples(f.Context(), b.ID))
	f.save(w, 0, true)
	f.wantNoWalk("without samples")
	if got := f.samples(b); got != "" {
		f.Errorf("left: %q", got)
	}
}
