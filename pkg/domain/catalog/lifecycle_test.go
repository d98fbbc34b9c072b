package catalog_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

// visible returns the fields of a product that clients see, as text.
func visible(p catalog.Product) string {
	p = clone(p)
	var reprocessed []string
	for i := range p.Images {
		img := &p.Images[i]
		status := img.ReprocessStatus()
		if reprocessed = append(reprocessed, string(status)); status == catalog.Failed {
			reprocessed = append(reprocessed, string(img.ReprocessError))
		}
		*img = catalog.Image{
			ID: img.ID, Status: img.Status, Attempts: img.Attempts, ErrorCode: img.ErrorCode, ErrorDetail: img.ErrorDetail,
			Width: img.Width, Height: img.Height, Renditions: img.Renditions,
		}
	}
	p.Version, p.Revision = 0, 0
	text, _ := json.Marshal(p)
	return fmt.Sprint(string(text), reprocessed)
}

// clientFields returns the fields of a product that only clients change, as text.
func clientFields(p catalog.Product) string {
	return fmt.Sprint(p.Name, p.ImageURLs, p.Deleted)
}

// lifecycle is one product under random events, with attempts that crash, lag and continue.
type lifecycle struct {
	*harness
	t        *testing.T
	rt       *rapid.T
	id       catalog.ProductID
	attempts []catalog.Attempt          // all that ever began; each may act at any time
	images   []catalog.ImageID          // all that ever existed
	tokens   map[catalog.ImageID]int64  // the highest fencing token seen
	outcomes map[string]string          // the outcome of a job, by its id
	finished map[string]bool            // prefixes that were ever published
	deleted  map[string]bool            // prefixes whose objects are deleted
	sources  map[catalog.ImageID]string // the source URL of an image
	steps    map[string]func(p catalog.Product) error
}

// TestLife applies random events to a product and checks the invariants after each.
func TestLife(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		l := &lifecycle{
			harness: newHarness(t), t: t, rt: rt, tokens: map[catalog.ImageID]int64{}, outcomes: map[string]string{},
			finished: map[string]bool{}, deleted: map[string]bool{}, sources: map[catalog.ImageID]string{},
		}
		l.id = l.create(t, rapid.IntRange(1, 3).Draw(rt, "images")).ID
		l.steps = map[string]func(catalog.Product) error{
			"begin": l.beginCurrent, "second begin": l.beginCurrent, "old record": l.beginOld, "finish": l.finish,
			"finish the last": l.finishLast, "retry": l.retry, "defer": l.deferAttempt, "postpone": l.postpone,
			"fail": l.fail, "release": l.release, "republish": l.republish, "wait": l.wait, "collect": l.collect,
			"patch": l.patchAny, "reprocess": l.reprocessAny, "replay": l.replay, "reprocess if": l.reprocessIf, "delete": l.remove,
		}
		names := slices.Sorted(maps.Keys(l.steps))
		l.check("create", catalog.Product{}, l.store.row(l.id))
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			before := l.store.row(l.id)
			step := rapid.SampledFrom(names).Draw(rt, "step")
			err := l.steps[step](before)
			if err != nil && !errors.Is(err, catalog.ErrDone) && !errors.Is(err, catalog.ErrSuperseded) &&
				!errors.Is(err, catalog.ErrGivenUp) && !errors.Is(err, catalog.ErrDeletionStarted) &&
				!errors.Is(err, catalog.ErrRevision) && !fault.Is(err, fault.NotFound) {
				rt.Fatalf("%s: %v", step, err)
			}
			l.check(step, before, l.store.row(l.id))
		}
	})
}

// pick draws an element of values; ok is false if there is none.
func pick[T any](l *lifecycle, values []T, label string) (one T, ok bool) {
	if len(values) == 0 {
		return one, false
	}
	return values[rapid.IntRange(0, len(values)-1).Draw(l.rt, label)], true
}

// act calls fn with any attempt that ever began.
func (l *lifecycle) act(outcome string, fn func(catalog.Attempt) error) error {
	a, ok := pick(l, l.attempts, "attempt")
	if !ok {
		return nil
	}
	return l.record(a, outcome, fn(a))
}

// record checks that a job has at most one outcome.
func (l *lifecycle) record(a catalog.Attempt, outcome string, err error) error {
	if err == nil || errors.Is(err, catalog.ErrGivenUp) {
		if l.outcomes[a.JobID] != "" {
			l.rt.Fatalf("job %s has two outcomes: %s and %s", a.JobID, l.outcomes[a.JobID], outcome)
		}
		l.outcomes[a.JobID] = outcome
	}
	return err
}

func (l *lifecycle) beginWith(r catalog.Job) error {
	a, err := l.Begin(l.t.Context(), r, budget)
	if err == nil {
		l.attempts = append(l.attempts, a)
	} else if errors.Is(err, catalog.ErrGivenUp) {
		return l.record(catalog.Attempt{Job: r}, "given up", err)
	}
	return err
}

func (l *lifecycle) beginCurrent(p catalog.Product) error {
	img, ok := pick(l, p.Images, "image")
	if !ok {
		return nil
	}
	return l.beginWith(catalog.Job{ProductID: p.ID, ImageID: img.ID, JobID: img.JobID})
}

// beginOld delivers any record that was ever sent.
func (l *lifecycle) beginOld(catalog.Product) error {
	m, ok := pick(l, l.store.sent(event.TypeImageRequested), "record")
	if !ok {
		return nil
	}
	r, err := event.Decode[event.ImageRequested](m.Message)
	if err != nil {
		return err
	}
	return l.beginWith(catalog.Job{
		ProductID: catalog.ProductID(r.ProductID), ImageID: catalog.ImageID(r.ImageID), JobID: m.ID,
	})
}

func (l *lifecycle) finishAttempt(a catalog.Attempt) error {
	err := l.Finish(l.t.Context(), a, result(a))
	if err == nil {
		if l.deleted[a.Prefix] {
			l.rt.Fatalf("%s was published after its objects were deleted", a.Prefix)
		}
		l.finished[a.Prefix] = true
	}
	return err
}

func (l *lifecycle) finish(catalog.Product) error { return l.act("finish", l.finishAttempt) }

func (l *lifecycle) finishLast(catalog.Product) error {
	if len(l.attempts) == 0 {
		return nil
	}
	a := l.attempts[len(l.attempts)-1]
	return l.record(a, "finish", l.finishAttempt(a))
}

func (l *lifecycle) retry(catalog.Product) error {
	return l.act("retry", func(a catalog.Attempt) error { return l.Retry(l.t.Context(), a, sourceTimeout(), policy()) })
}

func (l *lifecycle) deferAttempt(catalog.Product) error {
	return l.act("defer", func(a catalog.Attempt) error {
		return l.Defer(l.t.Context(), a, sourceTimeout(), policy(), time.Second)
	})
}

func (l *lifecycle) postpone(catalog.Product) error {
	return l.act("defer", func(a catalog.Attempt) error {
		return l.Postpone(l.t.Context(), a.Job, policy(), time.Second)
	})
}

func (l *lifecycle) fail(catalog.Product) error {
	return l.act("fail", func(a catalog.Attempt) error { return l.Fail(l.t.Context(), a, sourceTimeout()) })
}

func (l *lifecycle) release(catalog.Product) error {
	a, ok := pick(l, l.attempts, "attempt")
	if !ok {
		return nil
	}
	return l.Release(l.t.Context(), a)
}

func (l *lifecycle) republish(catalog.Product) error {
	id, _ := pick(l, l.images, "image")
	return l.Republish(l.t.Context(), l.id, id, 5*time.Minute)
}

func (l *lifecycle) wait(catalog.Product) error {
	l.store.now = l.store.now.Add(10 * time.Minute)
	return nil
}

// collect deletes the objects of due deletions.
func (l *lifecycle) collect(catalog.Product) error {
	for prefix, in := range l.store.deletions {
		if !in.due.After(l.store.now) {
			in.started, l.deleted[prefix] = true, true
		}
	}
	return nil
}

// patchAny patches the product to random images, whose URLs may repeat.
func (l *lifecycle) patchAny(p catalog.Product) error {
	urls := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) string { return url(rapid.IntRange(0, 3).Draw(rt, "n")) }), 0, 4).
		Draw(l.rt, "urls")
	patch := images(urls...)
	if name := rapid.SampledFrom([]string{"", "Chair", "Desk"}).Draw(l.rt, "name"); name != "" {
		patch.Name = &name
	}
	seen := rapid.SampledFrom([]catalog.Revisions{nil, {p.Revision}, {p.Revision - 1}}).Draw(l.rt, "seen")
	got, err := l.Patch(l.t.Context(), l.id, patch, seen, "")
	if err != nil {
		return err
	}
	if !slices.Equal(got.ImageURLs, urls) {
		l.rt.Fatalf("patched to %v, got %v", urls, got.ImageURLs)
	}
	for _, u := range urls { // of the images with one URL, as many are kept as both lists allow
		hasURL := func(img catalog.Image) bool { return img.SourceURL == u }
		before, after := filter(p.Images, hasURL), filter(got.Images, hasURL)
		kept := filter(after, func(img catalog.Image) bool { return slices.ContainsFunc(before, sameRow(img)) })
		if len(kept) != min(len(before), len(after)) {
			l.rt.Fatalf("of %d images of %s, %d of %d were kept", len(before), u, len(kept), len(after))
		}
	}
	return nil
}

// sameRow reports whether two images are equal except for their positions.
func sameRow(a catalog.Image) func(catalog.Image) bool {
	a.Position = 0
	return func(b catalog.Image) bool {
		b.Position = 0
		return fmt.Sprint(a) == fmt.Sprint(b)
	}
}

func filter(images []catalog.Image, keep func(catalog.Image) bool) []catalog.Image {
	return slices.DeleteFunc(slices.Clone(images), func(img catalog.Image) bool { return !keep(img) })
}

func (l *lifecycle) reprocessAny(catalog.Product) error {
	id, _ := pick(l, l.images, "image")
	_, err := l.Reprocess(l.t.Context(), l.id, id, "")
	return err
}

func (l *lifecycle) reprocessIf(catalog.Product) error {
	id, _ := pick(l, l.images, "image")
	status := rapid.SampledFrom([]catalog.Status{"", catalog.Ready, catalog.Failed}).Draw(l.rt, "status")
	return l.ReprocessIf(l.t.Context(), l.id, id, catalog.Filter{Status: status},
		time.Duration(rapid.IntRange(0, 20).Draw(l.rt, "delay"))*time.Minute)
}

// replay replays any image.dead event that was ever sent.
func (l *lifecycle) replay(catalog.Product) error {
	m, ok := pick(l, l.store.sent(event.TypeImageDead), "event")
	if !ok {
		return nil
	}
	d, err := event.Decode[event.ImageDead](m.Message)
	if err != nil {
		return err
	}
	err = l.Replay(l.t.Context(), l.id, catalog.ImageID(d.ImageID), d.FencingToken)
	if err == nil {
		err = l.record(catalog.Attempt{Job: catalog.Job{JobID: m.ID}}, "replay", nil)
	}
	return err
}

// remove deletes the product in one of five cases, because few events have an effect afterwards.
func (l *lifecycle) remove(p catalog.Product) error {
	if rapid.IntRange(0, 4).Draw(l.rt, "really") > 0 {
		return nil
	}
	return l.Delete(l.t.Context(), l.id, rapid.SampledFrom([]catalog.Revisions{nil, {p.Revision}}).Draw(l.rt, "seen"), "")
}

// check fails the test if an invariant does not hold after a step.
func (l *lifecycle) check(step string, before, after catalog.Product) {
	l.checkVersions(step, before, after)
	if !slices.Equal(after.Compressed, after.CompressedKeys()) {
		l.rt.Fatalf("compressed is %v, the images have %v", after.Compressed, after.CompressedKeys())
	}
	if len(after.ImageURLs) != len(after.Images) {
		l.rt.Fatalf("%d images for %v", len(after.Images), after.ImageURLs)
	}
	for i, img := range after.Images {
		if img.Position != i || img.SourceURL != after.ImageURLs[i] {
			l.rt.Fatalf("at position %d is image %+v, want one of %s", i, img, after.ImageURLs[i])
		}
		l.checkImage(after, img)
	}
	l.checkObjects(after)
	dead := map[string]bool{}
	for _, m := range l.store.sent(event.TypeImageDead) {
		d, err := event.Decode[event.ImageDead](m.Message)
		if err != nil {
			l.rt.Fatal(err)
		}
		key := fmt.Sprint(d.ImageID, d.FencingToken)
		if dead[key] {
			l.rt.Fatalf("two dead events for image and fencing token %s", key)
		}
		dead[key] = true
	}
}

// checkVersions checks that the version grows with visible changes, and the revision with changes of clients.
func (l *lifecycle) checkVersions(step string, before, after catalog.Product) {
	if changed := l.store.sent(event.TypeProductChanged); int64(len(changed)) != after.Version {
		l.rt.Fatalf("%d product.changed for version %d", len(changed), after.Version)
	}
	if step == "create" {
		return
	}
	if visible(before) != visible(after) && after.Version != before.Version+1 {
		l.rt.Fatalf("a visible field changed and the version went from %d to %d", before.Version, after.Version)
	}
	if after.Version != before.Version && after.Version != before.Version+1 {
		l.rt.Fatalf("the version went from %d to %d", before.Version, after.Version)
	}
	want := before.Revision
	if clientFields(before) != clientFields(after) {
		want++
	}
	if after.Revision != want {
		l.rt.Fatalf("the revision went from %d to %d, want %d", before.Revision, after.Revision, want)
	}
	if before.Deleted && (!after.Deleted || after.Version != before.Version) {
		l.rt.Fatalf("a deleted product changed: %+v", after)
	}
}

func (l *lifecycle) checkImage(p catalog.Product, img catalog.Image) {
	if img.FencingToken < l.tokens[img.ID] {
		l.rt.Fatalf("a fencing token fell from %d to %d", l.tokens[img.ID], img.FencingToken)
	}
	l.tokens[img.ID] = img.FencingToken
	if source, known := l.sources[img.ID]; !known {
		l.sources[img.ID] = img.SourceURL
		l.images = append(l.images, img.ID)
	} else if source != img.SourceURL {
		l.rt.Fatalf("image %d has source %s, and had %s", img.ID, img.SourceURL, source)
	}
	idle := img.JobState == catalog.Idle
	if idle != (img.JobID == "") || idle && img.Status == catalog.Pending && !p.Deleted || p.Deleted && !idle {
		l.rt.Fatalf("image %d is inconsistent: job state %s, job %q, status %s", img.ID, img.JobState, img.JobID, img.Status)
	}
	sent := slices.ContainsFunc(l.store.outbox, func(r outRow) bool {
		m, err := event.Decode[event.ImageRequested](r.Message)
		return r.ID == img.JobID && err == nil && m.ImageID == int64(img.ID) && m.PipelineHash == img.PipelineHash
	})
	if img.JobID != "" && !sent {
		l.rt.Fatalf("image %d waits for job %s, which was never sent", img.ID, img.JobID)
	}
}

// checkObjects checks that visible objects stay, and that all others are deleted or scheduled for deletion.
func (l *lifecycle) checkObjects(p catalog.Product) {
	published := map[string]bool{}
	for _, img := range p.Images {
		for _, r := range img.Renditions {
			published[r.Key[:strings.LastIndexByte(r.Key, '/')+1]] = !p.Deleted
		}
	}
	for prefix, visible := range published {
		if visible && (l.deleted[prefix] || l.store.deletions[prefix] != nil) {
			l.rt.Fatalf("visible objects below %s are deleted or scheduled for deletion", prefix)
		}
	}
	for _, a := range l.attempts {
		if !published[a.Prefix] && !l.deleted[a.Prefix] && l.store.deletions[a.Prefix] == nil {
			l.rt.Fatalf("the deletion of the objects below %s is not scheduled; published before: %v", a.Prefix, l.finished[a.Prefix])
		}
	}
}
