package backfill_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/domain/scheduler"
	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/catalogtest"
)

// installation is a catalogue on a PostgreSQL server with the parts of an api, and workers that only record outcomes.
type installation struct {
	*catalogtest.Catalog
	backfill.Manager
	conn     *pgx.Conn
	inForce  atomic.Pointer[pipeline.Revision]
	messages chan event.Message
	failing  atomic.Int64 // percentage of attempts that fail

	mu       sync.Mutex
	finished map[int64]map[catalog.ImageID]int // outcomes of a backfill's jobs that were committed; 0: those of clients
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	in := &installation{Catalog: catalogtest.New(t, 1), finished: map[int64]map[catalog.ImageID]int{},
		messages: make(chan event.Message, 100_000)}
	in.Service.Pipeline = in.inForce.Load
	in.Manager = backfill.Manager{By: backfill.CLI, ManagerDeps: backfill.ManagerDeps{
		Backfills: in.Store, Images: in.Store, Sampler: in.Store, Pipelines: in.Store,
	}}
	var err error
	in.conn, err = pgx.Connect(t.Context(), in.DSN)
	in.Must(err)
	t.Cleanup(func() { _ = in.conn.Close(context.Background()) })
	return in
}

// revision returns a pipeline whose thumbnails have that width.
func revision(width int) *pipeline.Revision {
	p := pipeline.Default()
	p.Spec.Renditions[0].Width = width
	return pipeline.NewRevision(p)
}

// roll brings a pipeline into force in every api.
func (in *installation) roll(r *pipeline.Revision) {
	in.Helper()
	in.inForce.Store(r)
	in.Must(in.beat())
}

// beat writes the heartbeat of an api.
func (in *installation) beat() error {
	r := in.inForce.Load()
	return in.Store.RecordHeartbeat(context.WithoutCancel(in.Context()), pipeline.Report{
		Role: "api", Instance: "a", Revision: r.ID(), Hash: r.Hash(),
	})
}

// beats writes heartbeats until ctx ends.
func (in *installation) beats(ctx context.Context) error {
	for backoff.Sleep(ctx, time.Second) {
		if err := in.beat(); err != nil {
			in.Error(err)
		}
	}
	return nil
}

func (in *installation) exec(statement string, args ...any) {
	in.Helper()
	_, err := in.conn.Exec(in.Context(), statement, args...)
	in.Must(err)
}

func (in *installation) count(statement string, args ...any) (n int) {
	in.Helper()
	in.Must(in.conn.QueryRow(in.Context(), statement, args...).Scan(&n))
	return n
}

// fill adds images to products of 20 each. Of ten images, one was made by the pipeline r already, one has failed, and one is
// of a row of an earlier release.
func (in *installation) fill(images int, r *pipeline.Revision) {
	in.Helper()
	old := revision(1)
	in.Must(in.Store.SavePipeline(in.Context(), old.Hash(), old.Document()))
	in.exec(`INSERT INTO products (user_id, product_name, product_description, product_price, product_images)
		SELECT 1, 'p', '', 1, '{}' FROM generate_series(1, $1)`, images/20)
	in.exec(`INSERT INTO images (product_id, position, source_url, status, error_code, fencing_token, attempts, prefix,
			source_sha256, source_bytes, width, height, pipeline_hash, output_hash, renditions, requested_at)
		SELECT p.id, n, 'https://h' || p.id % 7 || '.example/' || n, CASE WHEN n % 10 = 1 THEN 'failed' ELSE 'ready' END,
			CASE WHEN n % 10 = 1 THEN 'http_status' ELSE '' END, 1, 1, 'products/1/1/1-a/', 'ab', 1000, 10, 10,
			CASE WHEN n % 10 = 0 THEN $1 ELSE $2 END,
			CASE n % 10 WHEN 0 THEN $3 WHEN 1 THEN '' WHEN 2 THEN '' ELSE $4 END,
			CASE WHEN n % 10 = 1 THEN '[]' ELSE jsonb_build_array(jsonb_build_object('name', 'full', 'format', 'jpeg', 'width', 1,
				'height', 1, 'bytes', 10, 'key', 'products/' || p.id || '/' || n || '/1-a/full.jpg', 'default', true)) END, now()
		FROM products p CROSS JOIN generate_series(0, 19) n WHERE p.product_name = 'p'`,
		r.Hash(), old.Hash(), r.Spec().OutputHash(), old.Spec().OutputHash())
	in.exec(`UPDATE products p SET product_images = (
			SELECT array_agg(source_url ORDER BY position) FROM images i WHERE i.product_id = p.id) WHERE product_name = 'p'`)
	in.exec(`ANALYZE`)
}

// start runs two walkers, the scheduler, the relay and workers until the returned function is called.
func (in *installation) start() (stop func()) {
	in.Helper()
	ctx, cancel := context.WithCancel(in.Context())
	var all sync.WaitGroup
	outbox, err := postgres.NewOutbox(in.DB)
	in.Must(err)
	reg := prometheus.NewRegistry
	outboxRelay := relay.New(outbox, in, relay.Config{Batch: 500, Poll: 10 * time.Millisecond, Sample: time.Minute}, reg(),
		zap.NewNop())
	jobs := scheduler.New(scheduler.Deps{Jobs: in.Store, Wake: outboxRelay.Wake, Now: time.Now, Log: zap.NewNop()},
		scheduler.Config{Interval: 10 * time.Millisecond, Batch: 500, HostWindow: 64, Window: 480}, reg())
	parts := []func(context.Context) error{outboxRelay.Run, jobs.Run, in.beats}
	for range 2 {
		walker := backfill.NewWalker(backfill.WalkerDeps{
			Walks: in.Store, List: in.Store.ListBackfills, Images: in.Store, Catalog: in.Service, Now: time.Now, Log: zap.NewNop(),
		}, backfill.Config{
			Interval: 10 * time.Millisecond, Lease: 5 * time.Second, Settle: 20 * time.Millisecond, LostAfter: time.Hour,
		}, reg())
		parts = append(parts, walker.Run)
	}
	for range 4 {
		parts = append(parts, in.work)
	}
	for _, run := range parts {
		all.Go(func() { _ = run(ctx) })
	}
	return func() {
		cancel()
		all.Wait()
		in.Must(outbox.Close())
	}
}

// Publish implements relay.Publisher.
func (in *installation) Publish(_ context.Context, messages []event.Message) []error {
	for _, m := range messages {
		if m.Type == event.TypeImageBackfill || m.Type == event.TypeImageRequested {
			in.messages <- m
		}
	}
	return make([]error, len(messages))
}

// work handles jobs as workers do, but renders nothing.
func (in *installation) work(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-in.messages:
			in.handle(m)
		}
	}
}

func (in *installation) handle(m event.Message) {
	var b event.ImageBackfill
	if r, err := event.Decode[event.ImageRequested](m); err == nil {
		b = event.ImageBackfill{ProductID: r.ProductID, ImageID: r.ImageID, PipelineHash: r.PipelineHash}
	} else if b, err = event.Decode[event.ImageBackfill](m); err != nil {
		in.Error(err)
		return
	}
	ctx := context.WithoutCancel(in.Context())
	a, err := in.Begin(ctx, catalog.Job{
		ProductID: catalog.ProductID(b.ProductID), ImageID: catalog.ImageID(b.ImageID), JobID: m.ID, BackfillID: b.BackfillID,
	}, time.Hour)
	if err == nil {
		if b.BackfillID != 0 && rand.Int64N(100) < in.failing.Load() {
			err = in.Fail(ctx, a, media.Fail(media.HTTPStatus, "404", nil))
		} else {
			err = in.Finish(ctx, a, catalog.Result{
				Width: 1, Height: 1, SourceSHA256: "ab", SourceBytes: 1, OutputHash: in.outputOf(a.PipelineHash),
				Renditions: []catalog.Rendition{{Name: "full", Format: "jpeg", Width: 1, Height: 1, Bytes: 1,
					Key: a.Prefix + "full.jpg", Default: true}},
			})
		}
	}
	switch {
	case errors.Is(err, catalog.ErrDone), errors.Is(err, catalog.ErrSuperseded):
	case err != nil:
		in.Errorf("image %d: %v", b.ImageID, err)
	default:
		in.mu.Lock()
		defer in.mu.Unlock()
		if in.finished[b.BackfillID] == nil {
			in.finished[b.BackfillID] = map[catalog.ImageID]int{}
		}
		in.finished[b.BackfillID][a.ImageID]++
	}
}

// outputOf returns the output hash of a pipeline that was saved.
func (in *installation) outputOf(hash string) string {
	document, err := in.Store.Pipeline(context.Background(), hash)
	if err != nil {
		in.Error(err)
		return ""
	}
	p, err := pipeline.Parse(document)
	if err != nil {
		in.Error(err)
	}
	return p.Spec.OutputHash()
}

// approved proposes a backfill to r for the images that differ from the pipeline before, and approves it.
func (in *installation) approved(r *pipeline.Revision) backfill.Backfill {
	in.Helper()
	pace := backfill.DefaultPace()
	pace.MaxInFlight, pace.Rate, pace.FailureThreshold = 200, backfill.MaxRate, 50
	selection, ok := backfill.Compare(revision(1).Spec(), r.Spec()).Selection()
	if !ok {
		in.Fatal("no image is affected")
	}
	b, err := in.Propose(in.Context(), backfill.Proposal{Target: r, Selection: selection, Pace: pace})
	in.Must(err)
	b, err = in.Approve(in.Context(), b.Name(), r.Hash())
	in.Must(err)
	return b
}

// await waits until a backfill meets a condition, and returns it.
func (in *installation) await(name, what string, ok func(backfill.Backfill) bool) backfill.Backfill {
	in.Helper()
	ctx, cancel := context.WithTimeout(in.Context(), 3*time.Minute)
	defer cancel()
	for {
		list, err := in.Store.ListBackfills(ctx)
		in.Must(err)
		for _, b := range list {
			if b.Name() == name && ok(b) {
				return b
			}
		}
		select {
		case <-ctx.Done():
			in.Fatalf("%s: not %s within three minutes: %+v", name, what, list)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// disturb changes products as clients do until stop is closed: it reprocesses images, removes some, and deletes products.
func (in *installation) disturb(stop <-chan struct{}, products int) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(2 * time.Millisecond):
		}
		id := catalog.ProductID(2 + rand.IntN(products)) // the first one has no images of this test
		p, err := in.Store.Product(in.Context(), id)
		if err != nil || p.Deleted || len(p.Images) == 0 {
			continue
		}
		switch n := rand.IntN(10); {
		case n < 6:
			_, err = in.Reprocess(in.Context(), id, p.Images[rand.IntN(len(p.Images))].ID, "")
		case n < 9:
			urls := p.ImageURLs[1:]
			_, err = in.Patch(in.Context(), id, catalog.ProductPatch{ImageURLs: &urls}, nil, "")
		default:
			err = in.Delete(in.Context(), id, nil, "")
		}
		if err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Invalid) {
			in.Errorf("product %d: %v", id, err)
		}
	}
}

// TestRows carries out backfills over 5,000 images: one is suspended, resumed, and superseded at half, the other completes,
// while clients edit and delete products. No image is made twice by one backfill, and none is forgotten.
func TestRows(t *testing.T) {
	t.Parallel()
	const images = 5000
	in := newInstallation(t)
	first, second := revision(2), revision(3)
	in.roll(first)
	in.fill(images, second)
	versions := in.count(`SELECT sum(version) FROM products`)
	in.failing.Store(5)
	stop := in.start()
	b := in.approved(first)
	if got := b.Plan.Images; got.Value != images*18/20 || got.Error != 0 { // those of second differ, too
		t.Errorf("the plan has %+v images, want %d", got, images*18/20)
	}
	running := make(chan struct{})
	var clients sync.WaitGroup
	clients.Go(func() { in.disturb(running, images/20) })
	in.await(b.Name(), "at an eighth", func(b backfill.Backfill) bool { return b.Done > images/8 })

	_, err := in.Suspend(t.Context(), b.Name(), false)
	in.Must(err)
	in.await(b.Name(), "without jobs", func(b backfill.Backfill) bool {
		return !b.Open && in.count(`SELECT count(*) FROM image_jobs WHERE class = 'backfill'`) == 0
	})
	suspended := in.await(b.Name(), "counted", func(b backfill.Backfill) bool {
		return b.Done+b.Failed == int64(in.ended(b.ID)) && in.count(`SELECT count(*) FROM backfill_events`) == 0
	})
	_, err = in.Resume(t.Context(), b.Name())
	in.Must(err)
	in.await(b.Name(), "going on", func(b backfill.Backfill) bool { return b.Done > suspended.Done+100 })
	in.await(b.Name(), "at half", func(b backfill.Backfill) bool { return b.Done > images*4/10 })

	in.roll(second)
	in.await(b.Name(), "superseded", func(b backfill.Backfill) bool { return b.State == backfill.Superseded })
	next := in.approved(second)
	in.await(next.Name(), "at an eighth", func(b backfill.Backfill) bool { return b.Done > images/8 })
	close(running)
	clients.Wait()
	in.await(next.Name(), "complete", func(b backfill.Backfill) bool { return b.State == backfill.Complete })
	in.await(b.Name(), "counted", func(b backfill.Backfill) bool { return b.Done+b.Failed == int64(in.ended(b.ID)) })
	stop()
	in.checkRows(b.ID, next.Name(), second)
	if after := in.count(`SELECT sum(version) FROM products`); after <= versions {
		t.Error("no version was raised")
	}
}

// ended returns how many images of a backfill have an outcome.
func (in *installation) ended(id int64) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.finished[id])
}

// checkRows reports images that a backfill has made twice, and those that the last one, to r, has forgotten.
func (in *installation) checkRows(first int64, last string, r *pipeline.Revision) {
	in.Helper()
	b := in.await(last, "there", func(backfill.Backfill) bool { return true })
	for _, id := range []int64{first, b.ID} {
		for image, n := range in.finished[id] {
			if n > 1 {
				in.Errorf("backfill %d has made image %d %d times", id, image, n)
			}
		}
	}
	if b.Done+b.Failed != int64(in.ended(b.ID)) || b.Requested != b.Done+b.Failed+b.Skipped || b.Failed == 0 || b.Skipped < 0 {
		in.Errorf("%d requested, %d done, %d failed, %d skipped; %d have ended", b.Requested, b.Done, b.Failed, b.Skipped,
			in.ended(b.ID))
	}
	const forgotten = `
		SELECT count(*) FROM images i JOIN products p ON p.id = i.product_id
		WHERE p.deleted_at IS NULL AND i.status = 'ready' AND i.backfill_id <> $1
			AND CASE WHEN i.output_hash <> '' THEN i.output_hash <> $2 ELSE i.pipeline_hash <> $3 END
			AND NOT EXISTS (SELECT FROM image_jobs j WHERE j.image_id = i.id)`
	if n := in.count(forgotten, b.ID, r.Spec().OutputHash(), r.Hash()); n > 0 {
		in.Errorf("%d images are forgotten", n)
	}
	const other = `SELECT count(*) FROM images WHERE backfill_id = $1 AND status = 'failed' AND error_code <> 'http_status'`
	if n := in.count(other, b.ID); n > 0 {
		in.Errorf("%d images became failed", n)
	}
	if n := in.count(`SELECT count(*) FROM outbox WHERE type = 'image.dead'`); n > 0 {
		in.Errorf("%d dead letters", n)
	}
	in.Logf("%d made by the first backfill; %d done, %d failed, %d skipped in %d passes of the second", in.ended(first), b.Done,
		b.Failed, b.Skipped, b.Pass)
}
