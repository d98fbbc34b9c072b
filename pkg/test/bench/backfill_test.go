package main

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/client"
)

// The size of a backfill; make bench-backfill passes them.
var (
	backfillImages   = flag.Int("backfill-images", 1_000_000, "rows of images")
	backfillMatching = flag.Int("backfill-matching", 20_000, "images that are made again")
	backfillPairs    = flag.Int("backfill-pairs", 6, "pairs of phases with and without the backfill")
	backfillPhase    = flag.Duration("backfill-phase", 20*time.Second, "time of a phase in which products are posted")
	backfillPause    = flag.Duration("backfill-pause", 50*time.Millisecond, "time that the stub codec needs for an image")
	backfillWorkers  = flag.Int("backfill-workers", 2, "worker processes")
	backfillBound    = flag.Duration("backfill-bound", 25*time.Minute, "maximum time until the backfill is complete")
)

const (
	livePause   = 250 * time.Millisecond // between two products that a client posts, with an image each
	insertBatch = 5000                   // products of one statement, with 20 images each
)

// backfillSize is the size of a measured backfill.
type backfillSize struct {
	floodSize
	matching, pairs int
	phase           time.Duration
}

// backfillRun is an installation with many images and a manager of its backfills.
type backfillRun struct {
	*flood
	size    backfillSize
	manager backfill.Manager
	user    int64
	posted  int
}

func newBackfillRun(tb testing.TB, size backfillSize) *backfillRun {
	tb.Helper()
	r := &backfillRun{flood: newFlood(tb, size.floodSize), size: size}
	db, err := postgres.Open(postgres.Config{
		DSN: r.settings["POSTGRES_DSN"], MaxOpenConns: 2, ConnMaxLifetime: time.Hour, ConnMaxIdleTime: time.Hour,
		ConnectTimeout: time.Minute, Timeout: time.Minute, StatementTimeout: time.Minute, LockTimeout: time.Minute,
		SlowQuery: time.Hour, EditQueue: 10, OutboxMaxTries: 1,
		List: postgres.ListConfig{MaxOpenConns: 1, MaxWaiting: 1, Wait: time.Minute, StatementTimeout: time.Minute},
	}, zap.NewNop(), prometheus.NewRegistry())
	must(tb, err)
	tb.Cleanup(func() { must(tb, db.Close()) })
	store := postgres.NewStore(db)
	r.manager = backfill.Manager{By: backfill.CLI, ManagerDeps: backfill.ManagerDeps{
		Backfills: store, Images: store, Sampler: store, Pipelines: store,
	}}
	r.user, err = r.api.CreateUser(tb.Context(), "Ada", "ada@example.com")
	must(tb, err)
	return r
}

// insertImages adds ready images of products of 20. Of each stride images, the first one has other renditions than r makes.
const insertImages = `
WITH p AS (
    INSERT INTO products (user_id, product_name, product_description, product_price)
    SELECT $1, 'Kettle', '', 1 FROM generate_series(1, $2) RETURNING id)
INSERT INTO images (product_id, position, source_url, status, fencing_token, attempts, prefix, source_sha256, source_bytes,
    width, height, pipeline_hash, output_hash, renditions, requested_at)
SELECT id, n, $3 || '/64x48/photo-' || (id * 20 + n) % 100000 || '.jpg', 'ready', 1, 1,
    'products/' || id || '/' || n || '/1-a/', 'ab', 1000, 64, 48, $4,
    CASE WHEN (id * 20 + n) % $6 = 0 THEN 'another' ELSE $5 END,
    jsonb_build_array(jsonb_build_object('name', 'full', 'format', 'jpeg', 'width', 64, 'height', 48, 'bytes', 900,
        'default', true, 'key', 'products/' || id || '/' || n || '/1-a/full.jpg')), now()
FROM p CROSS JOIN generate_series(0, 19) n`

// fillImages adds the images of the size.
func (r *backfillRun) fillImages(tb testing.TB) {
	tb.Helper()
	p := pipeline.NewRevision(pipeline.Default())
	stride := r.size.images / r.size.matching
	for products := r.size.images / 20; products > 0; products -= insertBatch {
		_, err := r.pool.Exec(tb.Context(), insertImages, r.user, min(products, insertBatch), r.hosts[0], p.Hash(),
			p.Spec().OutputHash(), stride)
		must(tb, err)
	}
	_, err := r.pool.Exec(tb.Context(), `ANALYZE`)
	must(tb, err)
}

// approved proposes the backfill and approves it, suspended.
func (r *backfillRun) approved(tb testing.TB) backfill.Backfill {
	tb.Helper()
	pace := backfill.DefaultPace()
	pace.Rate, pace.MaxInFlight = backfill.MaxRate, 200
	b, err := r.manager.Propose(tb.Context(), backfill.Proposal{
		Target: pipeline.NewRevision(pipeline.Default()), Selection: backfill.Selection{Kind: backfill.Renditions}, Pace: pace,
	})
	must(tb, err)
	_, err = r.manager.Suspend(tb.Context(), b.Name(), false)
	must(tb, err)
	b, err = r.manager.Approve(tb.Context(), b.Name(), b.TargetHash)
	must(tb, err)
	return b
}

// current returns the backfill as it is.
func (r *backfillRun) current(tb testing.TB) backfill.Backfill {
	tb.Helper()
	list, err := r.manager.Backfills.ListBackfills(tb.Context())
	must(tb, err)
	return list[0]
}

// live posts products for the time of a phase, and waits until their images have ended. It returns their ids.
func (r *backfillRun) live(tb testing.TB) (ids []int64) {
	tb.Helper()
	posts, ctx := errgroup.WithContext(tb.Context())
	posted := make(chan int64, 1+int(r.size.phase/livePause))
	for until := time.Now().Add(r.size.phase); time.Now().Before(until); <-time.After(livePause) {
		r.posted++
		url := fmt.Sprintf("%s/64x48/live-%d.jpg", r.hosts[1], r.posted)
		posts.Go(func() error {
			p, err := r.api.CreateProduct(ctx, client.NewProduct{UserID: r.user, Name: "Cup", Price: "1", Sources: []string{url}})
			posted <- p.ID
			return err
		})
	}
	must(tb, posts.Wait())
	close(posted)
	for id := range posted {
		ids = append(ids, id)
	}
	r.wait(tb, "the images of clients are done",
		`SELECT count(*) = 0 FROM images WHERE product_id = ANY($1) AND status = 'pending'`, ids)
	return ids
}

// times are those of images from accepted to ready, in seconds.
type times struct{ Images, P50, P99, Max float64 }

func (r *backfillRun) times(tb testing.TB, products []int64) (t times) {
	tb.Helper()
	must(tb, r.pool.QueryRow(tb.Context(), `SELECT count(*), percentile_disc(0.5) WITHIN GROUP (ORDER BY s),
			percentile_disc(0.99) WITHIN GROUP (ORDER BY s), max(s)
		FROM (SELECT extract(epoch FROM i.updated_at - p.created_at)::float8 AS s
			FROM images i JOIN products p ON p.id = i.product_id WHERE p.id = ANY($1) AND i.status = 'ready') t`, products).
		Scan(&t.Images, &t.P50, &t.P99, &t.Max))
	return t
}

// backfillResult is what a backfill has measured.
type backfillResult struct {
	with, without times
	forgotten     float64
	elapsed       time.Duration // with the backfill
	backfill      backfill.Backfill
}

// run measures pairs of phases, in turns with and without the backfill, and then lets it complete.
func (r *backfillRun) run(tb testing.TB) (result backfillResult) {
	tb.Helper()
	r.fillImages(tb)
	for range r.size.workers {
		r.programs = append(r.programs, startProgram(tb, "worker", r.settings))
	}
	b := r.approved(tb)
	var with, without []int64
	r.until = time.Now().Add(r.size.bound)
	r.live(tb) // opens connections
	for pair := range 2 * r.size.pairs {
		if pair%4 == 0 || pair%4 == 3 { // without, with, with, without
			without = append(without, r.live(tb)...)
			continue
		}
		_, err := r.manager.Resume(tb.Context(), b.Name())
		must(tb, err)
		r.wait(tb, "the backfill goes on", `SELECT count(*) > 0 FROM image_jobs WHERE class = 'backfill'`)
		start := time.Now()
		with = append(with, r.live(tb)...)
		_, err = r.manager.Suspend(tb.Context(), b.Name(), false)
		must(tb, err)
		r.wait(tb, "the backfill rests", `SELECT count(*) = 0 FROM image_jobs WHERE class = 'backfill'`)
		result.elapsed += time.Since(start)
	}
	result.with, result.without = r.times(tb, with), r.times(tb, without)
	start := time.Now()
	_, err := r.manager.Resume(tb.Context(), b.Name())
	must(tb, err)
	r.wait(tb, "the backfill is complete", `SELECT state NOT IN ('approved', 'running') FROM backfills`)
	result.elapsed += time.Since(start)
	result.backfill = r.current(tb)
	must(tb, r.pool.QueryRow(tb.Context(), `SELECT count(*) FROM images WHERE output_hash <> $1`, b.TargetOutput).
		Scan(&result.forgotten))
	for _, p := range slices.Backward(r.programs) {
		must(tb, p.Stop())
	}
	return result
}

// BenchmarkBackfill runs once for any b.N.
func BenchmarkBackfill(b *testing.B) {
	size := backfillSize{
		floodSize: floodSize{images: *backfillImages, workers: *backfillWorkers, pause: *backfillPause, bound: *backfillBound},
		matching:  *backfillMatching, pairs: *backfillPairs, phase: *backfillPhase,
	}
	r := newBackfillRun(b, size).run(b)
	report := func(name string, metrics map[string]float64) {
		b.Run(name, func(b *testing.B) {
			for unit, value := range metrics {
				b.ReportMetric(value, unit)
			}
		})
	}
	for name, t := range map[string]times{"without": r.without, "with": r.with} {
		report("live_"+name, map[string]float64{
			unitImages: t.Images, unitP50Seconds: t.P50, unitP99Seconds: t.P99, unitMaxSeconds: t.Max,
			unitRatio: r.with.P99 / r.without.P99, unitAdded: r.with.P99 - r.without.P99,
		})
	}
	done := r.backfill
	report("walk", map[string]float64{
		unitImages: float64(size.images), unitDone: float64(done.Done) / float64(size.matching), unitForgotten: r.forgotten,
		unitFailed: float64(done.Failed), unitPasses: float64(done.Pass), unitRate: float64(done.Done) / r.elapsed.Seconds(),
		unitWorkers: float64(size.workers), unitMatching: float64(size.matching),
	})
}

func TestBackfillBench(t *testing.T) {
	t.Parallel()
	size := backfillSize{
		floodSize: floodSize{images: 2000, workers: 1, bound: 5 * time.Minute, settings: map[string]string{
			"BACKFILL_INTERVAL": "100ms", "BACKFILL_SETTLE": "1s",
		}},
		matching: 100, pairs: 1, phase: time.Second,
	}
	r := newBackfillRun(t, size).run(t)
	if r.backfill.State != backfill.Complete || r.backfill.Done != 100 || r.forgotten != 0 || r.with.Images == 0 ||
		r.without.Images == 0 {
		t.Errorf("got %+v, want a hundred images made again and none forgotten", r)
	}
}
