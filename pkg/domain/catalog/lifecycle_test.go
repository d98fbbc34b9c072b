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

// visible is what a client can see of a product, as text.
func visible(p catalog.Product) string {
	p = clone(p)
	for i := range p.Images {
		img := &p.Images[i]
		*img = catalog.Image{
			ID: img.ID, Status: img.Status, Attempts: img.Attempts, ErrorCode: img.ErrorCode, ErrorDetail: img.ErrorDetail,
			Width: img.Width, Height: img.Height, Renditions: img.Renditions,
		}
	}
	p.Version, p.Revision = 0, 0
	text, _ := json.Marshal(p)
	return string(text)
}

// said is what clients have said of a product, as text.
func said(p catalog.Product) string {
	return fmt.Sprint(p.Name, p.ImageURLs, p.Deleted)
}

// life is one product under random events, with attempts that die, lag and wake up again.
type life struct {
	*harness
	t        *testing.T
	rt       *rapid.T
	id       catalog.ProductID
	attempts []catalog.Attempt          // every one that ever began: any may act at any time
	images   []catalog.ImageID          // every one that ever was
	fences   map[catalog.ImageID]int64  // the highest seen
	outcomes map[string]string          // what became of a ticket
	finished map[string]bool            // the prefixes that were ever published
	deleted  map[string]bool            // the prefixes whose objects are gone
	sources  map[catalog.ImageID]string // what a picture is made from
	steps    map[string]func(p catalog.Product) error
}

// TestLife drives a product through random events, and checks after each what must always hold.
func TestLife(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		l := &life{
			harness: newHarness(t), t: t, rt: rt, fences: map[catalog.ImageID]int64{}, outcomes: map[string]string{},
			finished: map[string]bool{}, deleted: map[string]bool{}, sources: map[catalog.ImageID]string{},
		}
		l.id = l.create(t, rapid.IntRange(1, 3).Draw(rt, "pictures")).ID
		l.steps = map[string]func(catalog.Product) error{
			"begin": l.beginCurrent, "begin again": l.beginCurrent, "old record": l.beginOld, "finish": l.finish,
			"finish the last": l.finishLast, "retry": l.retry, "defer": l.deferAttempt, "postpone": l.postpone,
			"fail": l.fail, "release": l.release, "repeat": l.repeat, "wait": l.wait, "compensate": l.compensate,
			"patch": l.revise, "reprocess": l.reprocessAny, "replay": l.replay, "remake": l.remakeAny, "delete": l.remove,
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

// pick draws one of some, or says that there is none.
func pick[T any](l *life, of []T, what string) (one T, ok bool) {
	if len(of) == 0 {
		return one, false
	}
	return of[rapid.IntRange(0, len(of)-1).Draw(l.rt, what)], true
}

// act lets any attempt that ever began do something.
func (l *life) act(outcome string, fn func(catalog.Attempt) error) error {
	a, ok := pick(l, l.attempts, "attempt")
	if !ok {
		return nil
	}
	return l.settled(a, outcome, fn(a))
}

// settled holds that a ticket has one effect.
func (l *life) settled(a catalog.Attempt, outcome string, err error) error {
	if err == nil || errors.Is(err, catalog.ErrGivenUp) {
		if l.outcomes[a.JobID] != "" {
			l.rt.Fatalf("ticket %s had two effects: %s and %s", a.JobID, l.outcomes[a.JobID], outcome)
		}
		l.outcomes[a.JobID] = outcome
	}
	return err
}

func (l *life) beginWith(r catalog.Job) error {
	a, err := l.Begin(l.t.Context(), r, budget)
	if err == nil {
		l.attempts = append(l.attempts, a)
	} else if errors.Is(err, catalog.ErrGivenUp) {
		return l.settled(catalog.Attempt{Job: r}, "given up", err)
	}
	return err
}

func (l *life) beginCurrent(p catalog.Product) error {
	img, ok := pick(l, p.Images, "picture")
	if !ok {
		return nil
	}
	return l.beginWith(catalog.Job{ProductID: p.ID, ImageID: img.ID, JobID: img.JobID})
}

// beginOld lets any record that was ever sent come again.
func (l *life) beginOld(catalog.Product) error {
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

func (l *life) finishAttempt(a catalog.Attempt) error {
	err := l.Finish(l.t.Context(), a, result(a))
	if err == nil {
		if l.deleted[a.Prefix] {
			l.rt.Fatalf("%s was published after its objects were deleted", a.Prefix)
		}
		l.finished[a.Prefix] = true
	}
	return err
}

func (l *life) finish(catalog.Product) error { return l.act("finish", l.finishAttempt) }

func (l *life) finishLast(catalog.Product) error {
	if len(l.attempts) == 0 {
		return nil
	}
	a := l.attempts[len(l.attempts)-1]
	return l.settled(a, "finish", l.finishAttempt(a))
}

func (l *life) retry(catalog.Product) error {
	return l.act("retry", func(a catalog.Attempt) error { return l.Retry(l.t.Context(), a, sourceTimeout(), policy()) })
}

func (l *life) deferAttempt(catalog.Product) error {
	return l.act("defer", func(a catalog.Attempt) error {
		return l.Defer(l.t.Context(), a, sourceTimeout(), policy(), time.Second)
	})
}

func (l *life) postpone(catalog.Product) error {
	return l.act("defer", func(a catalog.Attempt) error {
		return l.Postpone(l.t.Context(), a.Job, policy(), time.Second)
	})
}

func (l *life) fail(catalog.Product) error {
	return l.act("fail", func(a catalog.Attempt) error { return l.Fail(l.t.Context(), a, sourceTimeout()) })
}

func (l *life) release(catalog.Product) error {
	a, ok := pick(l, l.attempts, "attempt")
	if !ok {
		return nil
	}
	return l.Release(l.t.Context(), a)
}

func (l *life) repeat(catalog.Product) error {
	id, _ := pick(l, l.images, "picture")
	return l.Republish(l.t.Context(), l.id, id, 5*time.Minute)
}

func (l *life) wait(catalog.Product) error {
	l.store.now = l.store.now.Add(10 * time.Minute)
	return nil
}

// compensate deletes what is due.
func (l *life) compensate(catalog.Product) error {
	for prefix, in := range l.store.deletions {
		if !in.due.After(l.store.now) {
			in.started, l.deleted[prefix] = true, true
		}
	}
	return nil
}

// revise patches the product to random pictures, whose URLs may repeat.
func (l *life) revise(p catalog.Product) error {
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
		l.rt.Fatalf("asked for %v, got %v", urls, got.ImageURLs)
	}
	for _, u := range urls { // as many pictures stay as had the URL and have it now
		of := func(img catalog.Image) bool { return img.SourceURL == u }
		had, have := filter(p.Images, of), filter(got.Images, of)
		kept := filter(have, func(img catalog.Image) bool { return slices.ContainsFunc(had, sameRow(img)) })
		if len(kept) != min(len(had), len(have)) {
			l.rt.Fatalf("of %d pictures of %s, %d of %d were kept", len(had), u, len(kept), len(have))
		}
	}
	return nil
}

// sameRow reports whether two pictures are one, wherever it stands.
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

func (l *life) reprocessAny(catalog.Product) error {
	id, _ := pick(l, l.images, "picture")
	_, err := l.Reprocess(l.t.Context(), l.id, id, "")
	return err
}

func (l *life) remakeAny(catalog.Product) error {
	id, _ := pick(l, l.images, "picture")
	status := rapid.SampledFrom([]catalog.Status{"", catalog.Ready, catalog.Failed}).Draw(l.rt, "status")
	return l.ReprocessIf(l.t.Context(), l.id, id, catalog.Filter{Status: status},
		time.Duration(rapid.IntRange(0, 20).Draw(l.rt, "delay"))*time.Minute)
}

// replay replays any death that was ever told.
func (l *life) replay(catalog.Product) error {
	m, ok := pick(l, l.store.sent(event.TypeImageDead), "death")
	if !ok {
		return nil
	}
	d, err := event.Decode[event.ImageDead](m.Message)
	if err != nil {
		return err
	}
	err = l.Replay(l.t.Context(), l.id, catalog.ImageID(d.ImageID), d.FencingToken)
	if err == nil {
		err = l.settled(catalog.Attempt{Job: catalog.Job{JobID: m.ID}}, "replay", nil)
	}
	return err
}

// remove deletes the product, once in a while: afterwards there is little left to happen.
func (l *life) remove(p catalog.Product) error {
	if rapid.IntRange(0, 4).Draw(l.rt, "really") > 0 {
		return nil
	}
	return l.Delete(l.t.Context(), l.id, rapid.SampledFrom([]catalog.Revisions{nil, {p.Revision}}).Draw(l.rt, "seen"), "")
}

// check holds what must always be true after a step.
func (l *life) check(step string, before, after catalog.Product) {
	l.checkVersions(step, before, after)
	if !slices.Equal(after.Compressed, after.CompressedKeys()) {
		l.rt.Fatalf("compressed is %v, pictures say %v", after.Compressed, after.CompressedKeys())
	}
	if len(after.ImageURLs) != len(after.Images) {
		l.rt.Fatalf("%d pictures for %v", len(after.Images), after.ImageURLs)
	}
	for i, img := range after.Images {
		if img.Position != i || img.SourceURL != after.ImageURLs[i] {
			l.rt.Fatalf("at %d stands picture %+v, want one of %s", i, img, after.ImageURLs[i])
		}
		l.checkPicture(after, img)
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
			l.rt.Fatalf("two dead events for picture and fence %s", key)
		}
		dead[key] = true
	}
}

// checkVersions holds the version to what is visible, and the revision to what clients have said.
func (l *life) checkVersions(step string, before, after catalog.Product) {
	if changed := l.store.sent(event.TypeProductChanged); int64(len(changed)) != after.Version {
		l.rt.Fatalf("%d product.changed for version %d", len(changed), after.Version)
	}
	if step == "create" {
		return
	}
	if visible(before) != visible(after) && after.Version != before.Version+1 {
		l.rt.Fatalf("something visible changed and the version went from %d to %d", before.Version, after.Version)
	}
	if after.Version != before.Version && after.Version != before.Version+1 {
		l.rt.Fatalf("the version went from %d to %d", before.Version, after.Version)
	}
	want := before.Revision
	if said(before) != said(after) {
		want++
	}
	if after.Revision != want {
		l.rt.Fatalf("the revision went from %d to %d, want %d", before.Revision, after.Revision, want)
	}
	if before.Deleted && (!after.Deleted || after.Version != before.Version) {
		l.rt.Fatalf("a deleted product changed: %+v", after)
	}
}

func (l *life) checkPicture(p catalog.Product, img catalog.Image) {
	if img.FencingToken < l.fences[img.ID] {
		l.rt.Fatalf("a fence fell from %d to %d", l.fences[img.ID], img.FencingToken)
	}
	l.fences[img.ID] = img.FencingToken
	if source, known := l.sources[img.ID]; !known {
		l.sources[img.ID] = img.SourceURL
		l.images = append(l.images, img.ID)
	} else if source != img.SourceURL {
		l.rt.Fatalf("picture %d is of %s now, and was of %s", img.ID, img.SourceURL, source)
	}
	idle := img.JobState == catalog.Idle
	if idle != (img.JobID == "") || idle && img.Status == catalog.Pending && !p.Deleted || p.Deleted && !idle {
		l.rt.Fatalf("picture %d is lost: work %s, ticket %q, status %s", img.ID, img.JobState, img.JobID, img.Status)
	}
	asked := slices.ContainsFunc(l.store.outbox, func(r outRow) bool {
		m, err := event.Decode[event.ImageRequested](r.Message)
		return r.ID == img.JobID && err == nil && m.ImageID == int64(img.ID) && m.PipelineHash == img.PipelineHash
	})
	if img.JobID != "" && !asked {
		l.rt.Fatalf("picture %d waits for ticket %s, which nobody was ever given", img.ID, img.JobID)
	}
}

// checkObjects holds that what is visible stays, and that nothing else does.
func (l *life) checkObjects(p catalog.Product) {
	shown := map[string]bool{}
	for _, img := range p.Images {
		for _, r := range img.Renditions {
			shown[r.Key[:strings.LastIndexByte(r.Key, '/')+1]] = !p.Deleted
		}
	}
	for prefix, visible := range shown {
		if visible && (l.deleted[prefix] || l.store.deletions[prefix] != nil) {
			l.rt.Fatalf("what is visible below %s is deleted, or will be", prefix)
		}
	}
	for _, a := range l.attempts {
		if !shown[a.Prefix] && !l.deleted[a.Prefix] && l.store.deletions[a.Prefix] == nil {
			l.rt.Fatalf("nobody will delete the objects below %s; published once: %v", a.Prefix, l.finished[a.Prefix])
		}
	}
}
