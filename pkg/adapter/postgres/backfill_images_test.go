package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/storetest"
)

func TestBackfillImages(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "search_and_locked_row_select_alike", run: selectAlike},
		{name: "images_in_work_are_busy", run: busyImages},
		{name: "search_is_bounded_and_continues", run: searchIsBounded},
		{name: "loose_jobs_are_those_without_an_attempt", run: looseJobs},
		{name: "outputs_and_previous_pipeline", run: outputsAndPrevious},
		{name: "round_releases_backfills_last_and_only_open_ones", run: roundOfBackfills},
		{name: "backfills_take_no_window_of_live_jobs", run: backfillsTakeNoWindow},
		{name: "originals_are_counted_and_requested", run: originalsOfBackfills},
	})
}

// outputs are the output hashes of pipelines that the images of these tests name.
func outputs() map[string]string {
	return map[string]string{"target": "new", "same": "new", "old": "old", "older": "old"}
}

// anyOf returns one of the values.
func anyOf[T any](values ...T) T { return values[rand.IntN(len(values))] }

// variedImages stores idle images of every kind and returns their products.
func (f *fixture) variedImages() []catalog.Product {
	f.Helper()
	var all []catalog.Product
	for range 4 {
		p := f.Product(20)
		p = f.Change(p.ID, func(p *catalog.Product) catalog.Change {
			for i := range p.Images {
				img := &p.Images[i]
				switch rand.IntN(4) {
				case 0:
					img.JobState, img.JobID = catalog.Idle, ""
					img.Status, img.ErrorCode = catalog.Failed, anyOf(media.TooLarge, media.Corrupt, media.Timeout)
				case 1:
					img.ReprocessError = anyOf(media.TooLarge, media.Timeout)
					fallthrough
				default:
					failed := img.ReprocessError
					*img = storetest.Finished(*img, "products/1/1/1-a/")
					img.ReprocessError = failed
				}
				*img = storetest.Idle(*img)
				img.PipelineHash, img.OutputHash = anyOf("target", "same", "old", "older", "unknown"), anyOf("", "", "new", "old")
				img.BackfillID = anyOf[int64](0, 0, 0, 9)
				img.RequestedAt = time.Date(2026, 1, 1+rand.IntN(20), 0, 0, 0, 0, time.UTC)
			}
			return catalog.Change{}
		})
		all = append(all, p)
	}
	return all
}

func selectAlike(f *fixture) {
	products := f.variedImages()
	selections := []backfill.Selection{
		{Kind: backfill.Renditions}, {Kind: backfill.Renditions, Codes: []media.Code{media.TooLarge}},
		{Kind: backfill.Failures, Codes: []media.Code{media.TooLarge, media.Corrupt}}, {Kind: backfill.Failures},
	}
	for range 40 {
		selections = append(selections, backfill.Selection{Kind: backfill.ByHand, Selector: backfill.Selector{
			Status: anyOf("", catalog.Ready, catalog.Failed), Code: anyOf("", "", media.TooLarge, media.Timeout),
			UserID: anyOf(0, products[0].UserID), OutputHash: anyOf("", "", "old", "new", "none"),
			RequestedBefore: anyOf(time.Time{}, time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)),
		}})
	}
	found := 0
	for _, s := range selections {
		b := backfill.Backfill{ID: 9, TargetHash: "target", TargetOutput: "new", Selection: s}
		var want []backfill.ImageRef
		for _, p := range products {
			for _, img := range f.Load(p.ID).Images {
				if img.BackfillID != b.ID && b.Selects(p.UserID, img, outputs()) {
					want = append(want, backfill.ImageRef{ProductID: p.ID, ImageID: img.ID})
				}
			}
		}
		got, err := f.store.Candidates(f.Context(), b, outputs(), backfill.Limit{Images: 1000, Rows: 1000})
		f.Must(err, "find candidates")
		f.Same(got, backfill.Candidates{Images: want}, fmt.Sprintf("%+v", s))
		found += len(want)

		var ids []int64
		for id := range int64(200) {
			ids = append(ids, id)
		}
		b.ID = 0 // a plan is for all
		sample, err := f.store.Sample(f.Context(), b, outputs(), ids)
		f.Must(err, "read sample")
		if int(sample.Matched) < len(want) || sample.Matched > 0 && s.Kind == backfill.Renditions && sample.StoredBytes.Sum == 0 {
			f.Errorf("%+v: the sample has %+v, want at least the %d images", s, sample, len(want))
		}
	}
	if found == 0 {
		f.Error("no selection has found an image")
	}
}

// ready makes an image of a product ready and idle.
func (f *fixture) ready(id catalog.ProductID, i int, output string) catalog.Image {
	f.Helper()
	return f.Change(id, func(p *catalog.Product) catalog.Change {
		p.Images[i] = storetest.Idle(storetest.Finished(p.Images[i], "products/1/1/1-a/"))
		p.Images[i].OutputHash = output
		return catalog.Change{}
	}).Images[i]
}

// job gives an image a job.
func (f *fixture) job(id catalog.ProductID, i int, class catalog.Class, hash string, backfillID int64) {
	f.Helper()
	f.Change(id, func(p *catalog.Product) catalog.Change {
		img := &p.Images[i]
		img.JobState, img.JobID, img.Class, img.Host = catalog.Queued, uuid.NewString(), class, "example.com"
		img.NotBefore, img.DueAt = p.CreatedAt, p.CreatedAt
		if backfillID != 0 {
			img.Backfill = catalog.BackfillJob{ID: backfillID, PipelineHash: hash, RequestedAt: p.CreatedAt}
		} else {
			img.PipelineHash = hash
		}
		return catalog.Change{}
	})
}

func busyImages(f *fixture) {
	p := f.Product(6)
	for i, row := range []struct {
		output     string
		class      catalog.Class
		hash       string
		backfillID int64
	}{
		{"old", "", "", 0},                          // found
		{"old", catalog.Live, "target", 0},          // busy: if the job fails, it is as it was
		{"new", catalog.Live, "old", 0},             // busy: it gets old renditions
		{"new", catalog.Live, "same", 0},            // it stays new
		{"old", catalog.BackfillClass, "target", 9}, // its own
		{"old", catalog.BackfillClass, "target", 8}, // busy: another backfill's, which is dropped
	} {
		f.ready(p.ID, i, row.output)
		if row.class != "" {
			f.job(p.ID, i, row.class, row.hash, row.backfillID)
		}
	}
	pending := f.Product(1) // its job names the pipeline "hash"
	b := backfill.Backfill{
		ID: 9, TargetHash: "target", TargetOutput: "new", Selection: backfill.Selection{Kind: backfill.Renditions},
	}
	got, err := f.store.Candidates(f.Context(), b, outputs(), backfill.Limit{Images: 10, Rows: 1000})
	f.Must(err, "find candidates")
	f.Same(got, backfill.Candidates{Images: []backfill.ImageRef{{ProductID: p.ID, ImageID: p.Images[0].ID}}, Busy: 4}, "found")
	f.Delete(pending.ID)
	got, err = f.store.Candidates(f.Context(), b, outputs(), backfill.Limit{Images: 10, Rows: 1000})
	f.Must(err, "find candidates")
	f.Same(got.Busy, 3, "busy without the deleted product")

	failures := backfill.Selection{Kind: backfill.Failures, Codes: []media.Code{media.TooLarge}}
	f.Product(1) // its job, by the pipeline "hash", may fail as too_large
	b = backfill.Backfill{ID: 9, TargetHash: "target", TargetOutput: "new", Selection: failures}
	got, err = f.store.Candidates(f.Context(), b, outputs(), backfill.Limit{Images: 10, Rows: 1000})
	f.Must(err, "find candidates")
	f.Same(got, backfill.Candidates{Busy: 3}, "jobs by other pipelines, which may fail for what the target accepts")
}

func searchIsBounded(f *fixture) {
	p := f.Product(3)
	for i := range 3 {
		f.ready(p.ID, i, "old")
	}
	b := backfill.Backfill{
		ID: 9, TargetHash: "target", TargetOutput: "new", Selection: backfill.Selection{Kind: backfill.Renditions},
	}
	var seen []catalog.ImageID
	for range 4 {
		got, err := f.store.Candidates(f.Context(), b, outputs(), backfill.Limit{Images: 1, Rows: 1000})
		f.Must(err, "find candidates")
		for _, img := range got.Images {
			seen = append(seen, img.ImageID)
		}
		if b.Cursor = got.Next; b.Cursor == 0 {
			break
		}
	}
	f.Same(seen, []catalog.ImageID{p.Images[0].ID, p.Images[1].ID, p.Images[2].ID}, "found")
	conn := connect(f.T, f.dsn)
	run(f.T, conn, `INSERT INTO images (product_id, position, source_url, status, pipeline_hash, output_hash)
		SELECT $1, n, 'https://example.com/', 'ready', 'target', 'new' FROM generate_series(3, 20003) n`, int64(p.ID))
	run(f.T, conn, `ANALYZE`)
	b.Cursor = p.Images[2].ID
	steps := 0
	for ; b.Cursor != 0; steps++ {
		got, err := f.store.Candidates(f.Context(), b, outputs(), backfill.Limit{Images: 10, Rows: 6000})
		f.Must(err, "find candidates")
		b.Cursor = got.Next
	}
	if steps != 4 {
		f.Errorf("20,001 images were looked at in %d steps, want 4", steps)
	}
}

func looseJobs(f *fixture) {
	p := f.Product(4)
	for i := range 4 {
		f.ready(p.ID, i, "old")
		f.job(p.ID, i, catalog.BackfillClass, "target", 9)
	}
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Images[1].JobState = catalog.Processing
		p.Images[1].DueAt = p.CreatedAt.Add(time.Hour)
		p.Images[2].JobState = catalog.Processing
		p.Images[2].DueAt = p.CreatedAt.Add(-time.Hour)
		return catalog.Change{}
	})
	f.job(p.ID, 3, catalog.BackfillClass, "target", 8)
	ids := func(lost time.Duration) (found []catalog.ImageID) {
		jobs, err := f.store.LooseJobs(f.Context(), 9, lost, 10)
		f.Must(err, "find loose jobs")
		for _, job := range jobs {
			found = append(found, job.ImageID)
		}
		return found
	}
	f.Same(ids(0), []catalog.ImageID{p.Images[0].ID, p.Images[2].ID}, "without an attempt in time")
	f.Same(len(ids(time.Minute)), 0, "lost before they are released")
	conn := connect(f.T, f.dsn)
	run(f.T, conn, `UPDATE image_jobs SET released_at = now() - interval '1 hour', due_at = now() - interval '1 hour'`)
	f.Same(len(ids(time.Minute)), 3, "released an hour ago, and not in the outbox")
	run(f.T, conn, `INSERT INTO outbox (event_id, topic, key, type, payload, headers)
		SELECT job_id, 't', 'k', 'image.backfill', '{}', '{}' FROM image_jobs WHERE image_id = $1`, int64(p.Images[0].ID))
	f.Same(len(ids(time.Minute)), 2, "one of them in the outbox")
	run(f.T, conn, `UPDATE outbox SET parked_at = now()`)
	f.Same(len(ids(time.Minute)), 3, "one of them parked in the outbox")
}

func outputsAndPrevious(f *fixture) {
	p := pipeline.Default()
	f.Must(f.store.SavePipeline(f.Context(), p.Hash(), p.Document()), "save")
	f.Must(f.store.SavePipeline(f.Context(), "unreadable", []byte(`{"kind":"Other"}`)), "save")
	got, err := f.store.Outputs(f.Context())
	f.Must(err, "read outputs")
	f.Same(got, map[string]string{p.Hash(): p.Spec.OutputHash()}, "outputs")
	hash, err := f.store.PreviousPipeline(f.Context(), "unreadable")
	f.Must(err, "find previous")
	f.Same(hash, p.Hash(), "the one before")
}

// runningBackfill returns the id of a running backfill.
func (f *fixture) runningBackfill(open bool) int64 {
	f.Helper()
	p := pipeline.Default()
	f.Must(f.store.SavePipeline(f.Context(), p.Hash(), p.Document()), "save")
	b, err := f.store.ProposeBackfill(f.Context(), backfill.Backfill{
		Pipeline: "default", ManagedBy: backfill.CLI, TargetHash: p.Hash(), State: backfill.Proposed, Pace: backfill.DefaultPace(),
	}, 10)
	f.Must(err, "propose")
	_, err = f.store.EditBackfill(f.Context(), b.Name(), func(b *backfill.Backfill, _ time.Time) error {
		b.State, b.Open = backfill.Running, open
		return nil
	})
	f.Must(err, "edit")
	return b.ID
}

func roundOfBackfills(f *fixture) {
	id := f.runningBackfill(false)
	p := f.Product(3)
	for i := range 3 {
		f.ready(p.ID, i, "old")
		f.job(p.ID, i, catalog.BackfillClass, "target", id)
	}
	f.Same(f.round(windows).Released[catalog.BackfillClass], 0, "released while it is closed")
	open := func(open bool) {
		_, err := f.store.EditBackfill(f.Context(), "default-1", func(b *backfill.Backfill, _ time.Time) error {
			b.Open = open
			return nil
		})
		f.Must(err, "edit")
	}
	open(true)
	is, err := f.store.BackfillOpen(f.Context(), id)
	f.Must(err, "read backfill")
	f.Same(is, true, "open")
	f.takeDue(f)
	w := windows
	w.Total = 2
	f.backlog(0, "h.example", 1, catalog.Bulk)
	r := f.round(w)
	f.Same([]int{r.Released[catalog.Bulk], r.Released[catalog.BackfillClass]}, []int{1, 1}, "released within a window of two")
	f.Same(f.round(w).Released[catalog.BackfillClass], 0, "released with a full window")
	topics := map[string]int{}
	for _, m := range f.takeDue(f) {
		topics[m.Topic]++
	}
	f.Same(topics, map[string]int{"vitrine.images.requested": 1, "vitrine.images.backfill": 1}, "messages")
}

func backfillsTakeNoWindow(f *fixture) {
	id := f.runningBackfill(true)
	p := f.Product(4)
	for i := range 4 {
		f.ready(p.ID, i, "old")
		f.job(p.ID, i, catalog.BackfillClass, "target", id)
	}
	w := windows
	w.Host = 4
	f.Same(f.round(w).Released[catalog.BackfillClass], 4, "released")
	f.store = f.store.Releasing(w)
	f.Store = f.store
	host := f.Load(p.ID).Images[0].Host
	live := f.backlog(0, host, 2, catalog.Live)[0]
	if img := f.Load(live.ID).Images[1]; img.ReleasedAt.IsZero() {
		f.Error("a live job waits, although only backfills are in flight")
	}
	f.backlog(0, host, 4, catalog.Bulk)
	r := f.round(w)
	f.Same([]int{r.InFlight, r.Released[catalog.Bulk]}, []int{2, 2}, "in flight and released")
}

// originalsOfBackfills has three ready images, of which the first has an original.
func originalsOfBackfills(f *fixture) {
	p := f.Product(3)
	for i := range p.Images {
		img := f.ready(p.ID, i, "old")
		f.Change(p.ID, func(p *catalog.Product) catalog.Change {
			if i > 0 {
				p.Images[i].OriginalKey = ""
			}
			return catalog.Change{}
		})
		p.Images[i] = img
	}
	b := backfill.Backfill{TargetHash: "target", TargetOutput: "new", Selection: backfill.Selection{Kind: backfill.Renditions}}
	ids := []int64{int64(p.Images[0].ID), int64(p.Images[1].ID), int64(p.Images[2].ID)}
	const source, stored = 123456, 91000 // of one image
	for onMissing, want := range map[backfill.OnMissing]backfill.Sample{
		backfill.FetchMissing: {
			SourceBytes: backfill.Moments{Sum: 2 * source, Squares: 2 * source * source},
			StoredBytes: backfill.Moments{Sum: 3 * stored, Squares: 3 * stored * stored},
		},
		backfill.SkipMissing: {StoredBytes: backfill.Moments{Sum: stored, Squares: stored * stored}},
	} {
		want.Matched, want.NoOriginal = 3, 2
		b.OnMissing = onMissing
		got, err := f.store.Sample(f.Context(), b, outputs(), ids)
		f.Must(err, "read sample")
		f.Same(got, want, string(onMissing))
	}
	id := f.runningBackfill(true)
	for i := range p.Images[:2] {
		f.job(p.ID, i, catalog.BackfillClass, "target", id)
	}
	f.takeDue(f)
	f.round(windows)
	sources := map[string]int{}
	for _, m := range f.takeDue(f) {
		requested, err := event.Decode[event.ImageBackfill](m)
		f.Must(err, "decode")
		sources[requested.Source]++
	}
	f.Same(sources, map[string]int{"": 1, event.SourceOriginal: 1}, "the sources of the released jobs")
}
