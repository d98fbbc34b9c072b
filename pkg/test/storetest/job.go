package storetest

import (
	"time"

	"github.com/google/uuid"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
)

// live returns a draft with that many images, whose jobs are live.
func (f *Fixture) live(images int) catalog.Product {
	f.Helper()
	draft := f.Draft(images)
	for i := range draft.Images {
		draft.Images[i].Class = catalog.Live
		draft.Images[i].Traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	}
	return draft
}

// wantJobs takes the messages that are due, and reports messages other than the jobs of images.
func (f *Fixture) wantJobs(when string, images ...catalog.Image) {
	f.Helper()
	sent := f.takeDue()
	if len(sent) != len(images) {
		f.Fatalf("%s: got %d messages, want %d", when, len(sent), len(images))
	}
	for i, img := range images {
		m, err := event.Decode[event.ImageRequested](sent[i])
		f.Must(err, "decode job")
		if sent[i].ID != img.JobID || m.ImageID != int64(img.ID) || m.SourceURL != img.SourceURL ||
			m.PipelineHash != img.PipelineHash || sent[i].Traceparent != img.Traceparent {
			f.Errorf("%s: got message %s of %+v, want the job of %+v", when, sent[i].ID, m, img)
		}
	}
}

func liveJobIsReleased(f *Fixture) {
	p := f.Insert(f.live(2))
	for _, img := range f.Load(p.ID).Images {
		if img.ReleasedAt.IsZero() || img.ReleasedAt.Before(p.CreatedAt) {
			f.Errorf("released at %s, want with the product of %s", img.ReleasedAt, p.CreatedAt)
		}
	}
	f.wantJobs("inserted", p.Images...)
	f.ReleaseDue(f)
	f.wantJobs("released a second time")
	added := NewImage(0, "https://images.example.com/new.jpg")
	added.Class = catalog.Live
	p = f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		Arrange(p, append(p.Images, added)...)
		return catalog.Change{}
	})
	f.Same(f.Load(p.ID), p, "the product")
	f.wantJobs("added", p.Images[2])
}

func bulkJobWaits(f *Fixture) {
	p := f.Product(2)
	if img := p.Images[0]; !img.ReleasedAt.IsZero() {
		f.Errorf("released at %s, want never", img.ReleasedAt)
	}
	f.wantJobs("inserted")
	f.ReleaseDue(f)
	f.wantJobs("released", p.Images...)
	got := f.Load(p.ID).Images
	if got[0].ReleasedAt.IsZero() {
		f.Error("a released job has no time of release")
	}
	f.Same(f.Change(p.ID, func(*catalog.Product) catalog.Change { return catalog.Change{} }).Images, got, "what Edit sees")
}

// requeued gives the first image of a product another job, due after delay.
func (f *Fixture) requeued(id catalog.ProductID, delay time.Duration) catalog.Image {
	f.Helper()
	p, err := f.Store.Edit(f.Context(), id, func(p *catalog.Product, now time.Time) (catalog.Change, error) {
		img := &p.Images[0]
		img.JobState, img.JobID, img.ReleasedAt = catalog.Queued, uuid.NewString(), time.Time{}
		img.NotBefore = now.Add(delay)
		img.DueAt = img.NotBefore
		img.Attempts++
		return catalog.Change{}, nil
	})
	f.Must(err, "edit product")
	return p.Images[0]
}

func replacedJobWaits(f *Fixture) {
	p := f.Insert(f.live(1))
	f.wantJobs("inserted", p.Images...)
	f.requeued(p.ID, time.Hour)
	f.ReleaseDue(f)
	f.wantJobs("due in an hour")
	img := f.requeued(p.ID, -time.Second)
	f.wantJobs("due before the scheduler runs")
	f.ReleaseDue(f)
	f.wantJobs("due", img)
}

func reprocessedImageHasNewJob(f *Fixture) {
	p := f.Insert(f.live(1))
	f.takeDue()
	job := p.Images[0]
	job.JobID, job.FencingToken, job.PipelineHash = uuid.NewString(), 9, "another"
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Images[0] = Finished(p.Images[0], "products/1/1/1-a/")
		return catalog.Change{}
	})
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		img := &p.Images[0]
		img.JobState, img.JobID, img.Class, img.Host = job.JobState, job.JobID, catalog.Live, job.Host
		img.FencingToken, img.PipelineHash, img.Traceparent = job.FencingToken, job.PipelineHash, job.Traceparent
		img.NotBefore, img.DueAt = job.NotBefore, job.DueAt
		return catalog.Change{}
	})
	got := f.Load(p.ID).Images[0]
	if got.Status != catalog.Ready || got.FencingToken != 9 || got.PipelineHash != "another" || got.ReleasedAt.IsZero() {
		f.Errorf("got %+v, want a ready image with a released job", got)
	}
	f.wantJobs("reprocessed", job)
}

func jobEnds(f *Fixture) {
	for name, end := range map[string]func(p *catalog.Product){
		"outcome": func(p *catalog.Product) { p.Images[0] = Finished(p.Images[0], "products/1/1/1-a/") },
		"image":   func(p *catalog.Product) { Arrange(p, p.Images[1]) },
		"product": func(p *catalog.Product) {
			p.Deleted, p.Images[0], p.Images[1] = true, Idle(p.Images[0]), Idle(p.Images[1])
			p.Version++
		},
	} {
		p := f.Product(2)
		kept := p.Images[1:]
		f.Change(p.ID, func(p *catalog.Product) catalog.Change { end(p); return catalog.Change{} })
		if name == "product" {
			kept = nil
		}
		f.ReleaseDue(f)
		f.wantJobs(name, kept...)
	}
}

// imageKeepsLastOutcome gives a finished image a job, whose fields then replace those of the last outcome.
func imageKeepsLastOutcome(f *Fixture) {
	p := f.Product(1)
	want := f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Images[0] = Finished(p.Images[0], "products/1/1/1-a/")
		return catalog.Change{}
	}).Images[0]
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		img := &p.Images[0]
		img.JobState, img.JobID, img.Class = catalog.Processing, uuid.NewString(), catalog.Bulk
		img.Attempts, img.FencingToken, img.Prefix = 0, 7, "products/1/1/7-b/"
		return catalog.Change{}
	})
	got := f.Load(p.ID).Images[0]
	if got.Attempts != 0 || got.FencingToken != 7 || got.Prefix != "products/1/1/7-b/" {
		f.Errorf("got %+v, want the fields of the job", got)
	}
	f.Same(got.Renditions, want.Renditions, "the renditions")
}

// backfillJobKeepsImage gives a finished image a job of a backfill, whose fields do not replace those of the last request.
func backfillJobKeepsImage(f *Fixture) {
	p := f.Product(1)
	finished := f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Images[0] = Finished(p.Images[0], "products/1/1/1-a/")
		p.Images[0].OutputHash, p.Images[0].BackfillID = "output", 7
		return catalog.Change{}
	}).Images[0]
	f.takeDue()
	want := finished
	want.JobState, want.JobID, want.Class, want.Host = catalog.Queued, uuid.NewString(), catalog.BackfillClass, "example.com"
	want.NotBefore, want.DueAt = p.CreatedAt, p.CreatedAt
	want.Backfill = catalog.BackfillJob{
		ID: 9, PipelineHash: "target", Attempts: 2, RequestedAt: p.CreatedAt, SkipMissing: true,
	}
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Images[0] = want
		return catalog.Change{Backfill: []catalog.BackfillEvent{
			{BackfillID: 9, ImageID: want.ID, Kind: catalog.BackfillRequested},
		}}
	})
	f.Same(f.Load(p.ID).Images[0], want, "with the job")
	f.wantJobs("a job of a backfill waits")
	want.JobState, want.FencingToken, want.Prefix = catalog.Processing, 5, "products/1/1/5-b/"
	f.Change(p.ID, func(p *catalog.Product) catalog.Change { p.Images[0] = want; return catalog.Change{} })
	f.Same(f.Load(p.ID).Images[0], want, "in work")
	ended := finished
	ended.FencingToken, ended.Prefix, ended.BackfillID = want.FencingToken, want.Prefix, 9
	f.Change(p.ID, func(p *catalog.Product) catalog.Change { p.Images[0] = ended; return catalog.Change{} })
	f.Same(f.Load(p.ID).Images[0], ended, "after a failure")
}
