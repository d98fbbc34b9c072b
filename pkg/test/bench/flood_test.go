package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/imageserver"
	"vitrine.io/pkg/test/port"
	"vitrine.io/pkg/test/servers"
)

// The size of a flood; make bench-flood passes them.
var (
	floodImages  = flag.Int("flood-images", 100_000, "images that the first user has queued")
	floodDone    = flag.Int("flood-done", 15_000, "images after which a flood ends, once those of the second user are ready")
	floodPause   = flag.Duration("flood-pause", 100*time.Millisecond, "time that the stub codec needs for an image")
	floodWorkers = flag.Int("flood-workers", 2, "worker processes")
	floodBound   = flag.Duration("flood-bound", 10*time.Minute, "maximum time of the queueing, and again of the processing")
)

const (
	floodProduct = 10 // images of a product
	floodClients = 8  // that create products at a time
	floodWarm    = 20 // images of a worker that are done before the second user comes
)

// floodSize is the size of a flood.
type floodSize struct {
	images, done, workers int
	pause, bound          time.Duration
	settings              map[string]string // beside the defaults
}

// flood is an api and workers with the stub codec, as processes. One user has queued many images of one host.
type flood struct {
	floodSize
	until    time.Time // the end of the queueing, or of the processing, at the latest
	settings map[string]string
	pool     *pgxpool.Pool
	kafka    sarama.Client
	api      *client.Client
	programs []*program
	hosts    [2]string // URLs of image servers whose addresses differ
}

func newFlood(tb testing.TB, size floodSize) *flood {
	tb.Helper()
	f := &flood{floodSize: size, settings: floodSettings(tb, size.pause)}
	maps.Copy(f.settings, size.settings)
	for i := range f.hosts { // all of 127.0.0.0/8 is the loopback interface; the networks /24 differ, too
		sources, err := imageserver.StartAt(fmt.Sprintf("127.0.%d.1:0", i+1))
		must(tb, err)
		tb.Cleanup(func() { must(tb, sources.Close()) })
		f.hosts[i] = sources.URL
	}
	var err error
	f.pool, err = pgxpool.New(tb.Context(), f.settings["POSTGRES_DSN"])
	must(tb, err)
	tb.Cleanup(f.pool.Close)
	f.kafka, err = sarama.NewClient(strings.Split(f.settings["KAFKA_BROKERS"], ","), sarama.NewConfig())
	must(tb, err)
	tb.Cleanup(func() { must(tb, f.kafka.Close()) })
	bin, err := programs()
	must(tb, err)
	setup := exec.CommandContext(tb.Context(), filepath.Join(bin, "vitrine"), "setup")
	setup.Env = environ(tb.TempDir(), f.settings)
	if out, err := setup.CombinedOutput(); err != nil {
		tb.Fatalf("vitrine setup: %v\n%s", err, out)
	}
	f.programs = append(f.programs, startProgram(tb, "api", f.settings))
	f.api = client.New("http://"+f.settings["HTTP_ADDR"], client.Options{Timeout: time.Minute})
	tb.Cleanup(f.api.Close)
	return f
}

// floodSettings returns the settings of all programs: the defaults, on a private part of the servers, with the stub codec.
func floodSettings(tb testing.TB, pause time.Duration) map[string]string {
	tb.Helper()
	bin, err := programs()
	must(tb, err)
	dir := tb.TempDir()
	codec := filepath.Join(dir, "codecstub-"+pause.String()) // its pause is in its name
	must(tb, os.Symlink(filepath.Join(bin, "codecstub"), codec))
	addrs, redisPrefix := servers.Redis(tb)
	brokers, topicPrefix := servers.Kafka(tb)
	bucket := servers.S3(tb)
	return map[string]string{
		"POSTGRES_DSN": servers.Postgres(tb), "POSTGRES_APPLICATION_NAME": topicPrefix,
		"REDIS_ADDRS": strings.Join(addrs, ","), "REDIS_KEY_PREFIX": redisPrefix,
		"KAFKA_BROKERS": strings.Join(brokers, ","), "KAFKA_TOPIC_PREFIX": topicPrefix,
		"KAFKA_REPLICATION": "1", "KAFKA_MIN_ISR": "1", "KAFKA_PARTITIONS": "24",
		"S3_ENDPOINT": bucket.Endpoint, "S3_REGION": bucket.Region, "S3_BUCKET": bucket.Bucket,
		"S3_ACCESS_KEY": bucket.AccessKey, "S3_SECRET_KEY": bucket.SecretKey, "S3_CREATE_BUCKET": "true",
		"HTTP_ADDR": port.Addr(tb), "PIPELINE_ALLOW_CIDRS": "127.0.0.0/8",
		"CODEC_PATH": codec, "CODEC_CHILDREN": "2", "SHUTDOWN_DELAY": "0s",
	}
}

// create posts a product whose images are those numbered from first on, at one host.
func (f *flood) create(ctx context.Context, user int64, host string, first int) (int64, error) {
	urls := make([]string, floodProduct)
	for i := range urls {
		urls[i] = fmt.Sprintf("%s/64x48/photo-%d.jpg", host, first+i)
	}
	p, err := f.api.CreateProduct(ctx, client.NewProduct{UserID: user, Name: "Kettle", Price: "12.50", Sources: urls})
	return p.ID, err
}

// fill queues the images of the first user, and waits until all of their messages that are sent at once are in Kafka.
func (f *flood) fill(tb testing.TB) {
	tb.Helper()
	user, err := f.api.CreateUser(tb.Context(), "Ada", "ada@example.com")
	must(tb, err)
	all, ctx := errgroup.WithContext(tb.Context())
	var next atomic.Int64
	for range floodClients {
		all.Go(func() error {
			for {
				first := int(next.Add(floodProduct)) - floodProduct
				if first >= f.images {
					return nil
				}
				if _, err := f.create(ctx, user, f.hosts[0], first); err != nil {
					return err
				}
			}
		})
	}
	must(tb, all.Wait())
	f.wait(tb, "the outbox is empty", `SELECT count(*) = 0 FROM outbox`)
}

// wait waits until a query returns true, or until the latest time. What is measured says whether it was reached.
func (f *flood) wait(tb testing.TB, what, query string, args ...any) {
	tb.Helper()
	for ; ; <-time.After(time.Second) {
		var ok bool
		must(tb, f.pool.QueryRow(tb.Context(), query, args...).Scan(&ok))
		for _, p := range f.programs {
			if !p.Running() {
				tb.Fatalf("the %s has ended: %s\n%s", p.Name, p.State(), p.Tail())
			}
		}
		switch {
		case ok:
			return
		case time.Now().After(f.until):
			tb.Logf("the time is over before %s", what)
			return
		}
	}
}

// floodResult is what a flood has measured.
type floodResult struct {
	same, other second // the images of the second user, at the host of the flood and at another one
	done        float64
	failed      float64
	elapsed     time.Duration // of the processing
	queued      counters      // by queueing the images
	processed   counters      // from then on
	tables      map[string]table
}

// second are ten images of the second user.
type second struct {
	ready     float64
	p95, slow float64 // from accepted to ready, in seconds; of an image that is not ready, its age
}

const countDone = `SELECT count(*) FILTER (WHERE status <> 'pending')`

// run queues the images, starts the workers, lets a second user come and waits.
func (f *flood) run(tb testing.TB) floodResult {
	tb.Helper()
	var r floodResult
	empty := f.count(tb)
	f.until = time.Now().Add(f.bound)
	f.fill(tb)
	full := f.count(tb)
	r.queued = full.since(empty)
	for range f.workers {
		f.programs = append(f.programs, startProgram(tb, "worker", f.settings))
	}
	start := time.Now()
	f.until = start.Add(f.bound)
	f.wait(tb, "the first images are done", `SELECT (`+countDone+` FROM images) >= $1`, floodWarm*f.workers)
	user, err := f.api.CreateUser(tb.Context(), "Grace", "grace@example.com")
	must(tb, err)
	var ids [2]int64
	for i, host := range f.hosts {
		ids[i], err = f.create(tb.Context(), user, host, f.images)
		must(tb, err)
	}
	f.wait(tb, "the images of the second user are done",
		`SELECT count(*) = 0 FROM images WHERE product_id = ANY($1) AND status = 'pending'`, ids[:])
	r.same, r.other = f.second(tb, ids[0]), f.second(tb, ids[1])
	f.wait(tb, "enough images are done", `SELECT (`+countDone+` FROM images) >= $1`, f.done)
	r.elapsed = time.Since(start)
	for _, p := range slices.Backward(f.programs) { // each session reports its last statistics when it ends
		must(tb, p.Stop())
	}
	f.programs, f.until = nil, time.Now().Add(time.Minute)
	f.wait(tb, "no session is left", `SELECT count(*) = 0 FROM pg_stat_activity WHERE starts_with(application_name, $1)`,
		f.settings["POSTGRES_APPLICATION_NAME"])
	r.processed = f.count(tb).since(full)
	r.tables = f.tables(tb)
	must(tb, f.pool.QueryRow(tb.Context(), countDone+`, count(*) FILTER (WHERE status = 'failed') FROM images`).
		Scan(&r.done, &r.failed))
	return r
}

// second returns the times of a product's images.
func (f *flood) second(tb testing.TB, product int64) (s second) {
	tb.Helper()
	must(tb, f.pool.QueryRow(tb.Context(), `SELECT count(*) FILTER (WHERE i.status = 'ready'), max(t.s),
			percentile_disc(0.95) WITHIN GROUP (ORDER BY t.s)
		FROM images i JOIN products p ON p.id = i.product_id, LATERAL (SELECT extract(epoch FROM
			CASE WHEN i.status = 'pending' THEN clock_timestamp() ELSE i.updated_at END - p.created_at)::float8 AS s) t
		WHERE p.id = $1`, product).Scan(&s.ready, &s.slow, &s.p95))
	return s
}

// BenchmarkFlood runs once for any b.N.
func BenchmarkFlood(b *testing.B) {
	r := newFlood(b, floodSize{
		images: *floodImages, done: *floodDone, workers: *floodWorkers, pause: *floodPause, bound: *floodBound,
	}).run(b)
	report := func(name string, metrics map[string]float64) {
		b.Run(name, func(b *testing.B) {
			for unit, value := range metrics {
				b.ReportMetric(value, unit)
			}
		})
	}
	for name, s := range map[string]second{"same_host": r.same, "other_host": r.other} {
		report(name, map[string]float64{
			unitRatio: s.p95 / floodGoal.Seconds(), unitP95Seconds: s.p95, unitMaxSeconds: s.slow, unitReady: s.ready,
		})
	}
	images := float64(*floodImages)
	report("queueing", map[string]float64{
		unitImages: images, unitCommits: r.queued.commits / images, unitRollbacks: r.queued.rollbacks / images,
		unitWAL: r.queued.wal / images, unitRecords: r.queued.records / images,
	})
	report("processing", map[string]float64{
		unitImages: r.done, unitWorkers: float64(*floodWorkers), unitRate: r.done / r.elapsed.Seconds(), unitFailed: r.failed,
		unitCommits: r.processed.commits / r.done, unitRollbacks: r.processed.rollbacks / r.done,
		unitWAL: r.processed.wal / r.done, unitRecords: r.processed.records / r.done,
	})
	report("together", map[string]float64{
		unitCommits: r.queued.commits/images + r.processed.commits/r.done, unitWAL: r.queued.wal/images + r.processed.wal/r.done,
		unitRecords: r.queued.records/images + r.processed.records/r.done, unitUpdates: r.tables["images"].Updates / r.done,
		unitRollbacks: r.queued.rollbacks/images + r.processed.rollbacks/r.done,
	})
	for name, t := range r.tables {
		report("table_"+name, map[string]float64{
			unitHeapMB: t.HeapMB, unitIndexesMB: t.IndexesMB, unitLive: t.Live, unitDead: t.Dead, unitUpdates: t.Updates,
			unitHOT: t.HOT,
		})
	}
}

func TestFlood(t *testing.T) {
	t.Parallel()
	r := newFlood(t, floodSize{images: 80, done: 100, workers: 1, bound: 5 * time.Minute}).run(t)
	if r.same.ready != floodProduct || r.other.ready != floodProduct || r.done != 100 || r.failed != 0 {
		t.Errorf("got %+v, want all images ready", r)
	}
	if r.tables["images"].Updates != 100 || r.tables["image_jobs"].Deletes != 100 {
		t.Errorf("got %+v, want one update of each image and no job left", r.tables)
	}
}
