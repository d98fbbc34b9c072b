package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/shopspring/decimal"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/adapter/codec"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/servers"
)

// codecRenderer is our codec process without a worker, with sources in memory.
type codecRenderer struct {
	pool   *codec.Pool
	spec   pipeline.Spec
	bodies map[string][]byte // by file
	pids   []int
}

// newCodecRenderer starts one codec process as the worker does, but never replaces it.
func newCodecRenderer(tb testing.TB, files []string, spec pipeline.Spec) *codecRenderer {
	tb.Helper()
	bin, err := programs()
	must(tb, err)
	spec.Limits.Deadline = pipeline.Duration(10 * time.Minute)
	m := &codecRenderer{spec: spec, bodies: map[string][]byte{}}
	for _, file := range files {
		m.bodies[file], err = os.ReadFile(file)
		must(tb, err)
	}
	path := filepath.Join(tb.TempDir(), "codec") // the path identifies the child among others
	must(tb, os.Symlink(filepath.Join(bin, "codec"), path))
	m.pool, err = codec.New(codec.Config{
		Path: path, Children: 1, RecycleAfter: 1 << 30, MaxRSS: 1 << 40, AddressSpace: 1536 << 20,
		StartTimeout: time.Minute, StartBackoff: time.Second, ShutdownGrace: time.Minute, Preload: "auto",
	}, prometheus.NewRegistry(), zap.NewNop())
	must(tb, err)
	tb.Cleanup(func() { must(tb, m.pool.Close(context.Background())) })
	must(tb, m.pool.Ready(tb.Context()))
	for _, pid := range childrenOf(os.Getpid()) {
		if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.HasPrefix(string(args), path) {
			m.pids = append(m.pids, pid)
		}
	}
	if len(m.pids) != 1 {
		tb.Fatalf("%d codec processes run, want 1", len(m.pids))
	}
	return m
}

// render implements renderer.
func (m *codecRenderer) render(files []string) (renderTotal, error) {
	var sum renderTotal
	for _, file := range files {
		out, err := m.pool.Render(context.Background(), m.bodies[file], m.spec)
		if err != nil {
			return renderTotal{}, fmt.Errorf("render %s: %w", file, err)
		}
		sum.renditions += len(out.Files) + len(out.Dropped) // dropped renditions were rendered as well
		for _, o := range out.Files {
			sum.bytes += len(o.Body)
		}
	}
	return sum, nil
}

// processes implements renderer.
func (m *codecRenderer) processes() []int { return m.pids }

// workerRenderer is a worker with two codecs: it consumes jobs from Kafka and writes objects to S3 and rows to Postgres.
// This process creates the products and serves the sources.
type workerRenderer struct {
	*instance
	user    catalog.UserID
	origin  *httptest.Server
	process *program
	busy    float64 // busy time of the codecs in seconds, by the worker's metric
	slots   float64 // available time of the codecs in seconds
}

// outputs is the number of files that the default pipeline renders of an image.
const outputs = 6

// workerChildren is the number of the worker's codecs: one per CPU of the reference machine.
const workerChildren = 2

func newWorkerRenderer(tb testing.TB) *workerRenderer {
	tb.Helper()
	m := &workerRenderer{instance: newInstance(tb)}
	m.cfg.Relay.Rate = 0
	outbox, publisher := m.createTopics(tb, 24)
	relay := relay.New(outbox, publisher, m.cfg.Relay, prometheus.NewRegistry(), m.log.Named("relay"))
	tb.Cleanup(running(tb, relay.Run))
	m.origin = httptest.NewServer(http.FileServer(http.Dir("/")))
	tb.Cleanup(m.origin.Close)
	user, err := m.service.CreateUser(tb.Context(), "Ada", "ada@example.com")
	must(tb, err)
	m.user = user.ID
	m.start(tb)
	return m
}

// start starts the worker and waits until it is ready.
func (m *workerRenderer) start(tb testing.TB) {
	tb.Helper()
	bin, err := programs()
	must(tb, err)
	p := pipeline.Default()
	p.Spec.Fetch.PerHost = 8
	p.Spec.Limits.Deadline = pipeline.Duration(10 * time.Minute)
	dir := tb.TempDir()
	file := filepath.Join(dir, "pipeline.yaml")
	must(tb, os.WriteFile(file, p.Document(), 0o600))
	bucket := servers.S3(tb)
	s3 := blob.Config{
		Endpoint: bucket.Endpoint, Region: bucket.Region, Bucket: bucket.Bucket, AccessKey: bucket.AccessKey,
		SecretKey: bucket.SecretKey, CreateBucket: true, AttemptTimeout: time.Minute,
	}
	objects, err := blob.New(s3, prometheus.NewRegistry(), zap.NewNop())
	must(tb, err)
	must(tb, objects.EnsureBucket(tb.Context()))
	objects.Close()
	m.process = startProgram(tb, "worker", map[string]string{
		"PIPELINE_FILE": file, "PIPELINE_ALLOW_CIDRS": "127.0.0.0/8", "POSTGRES_DSN": m.cfg.Postgres.DSN,
		"KAFKA_BROKERS": strings.Join(m.cfg.Kafka.Brokers, ","), "KAFKA_TOPIC_PREFIX": m.cfg.Kafka.TopicPrefix,
		"KAFKA_REPLICATION": "1", "KAFKA_MIN_ISR": "1", "KAFKA_PARTITIONS": "24",
		"REDIS_ADDRS": strings.Join(m.cfg.Redis.Addrs, ","), "REDIS_KEY_PREFIX": m.cfg.Redis.KeyPrefix,
		"S3_ENDPOINT": bucket.Endpoint, "S3_REGION": bucket.Region, "S3_BUCKET": bucket.Bucket,
		"S3_ACCESS_KEY": bucket.AccessKey, "S3_SECRET_KEY": bucket.SecretKey,
		"CODEC_PATH": filepath.Join(bin, "codec"), "CODEC_CHILDREN": strconv.Itoa(workerChildren),
	})
}

// render implements renderer. It creates a product with one image for each file.
func (m *workerRenderer) render(files []string) (renderTotal, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	busy, err := m.busySeconds()
	if err != nil {
		return renderTotal{}, err
	}
	start := time.Now()
	var ids []int64
	for _, file := range files {
		p, err := m.service.Create(ctx, catalog.NewProductInput{
			UserID: m.user, Name: "Photograph", Price: decimal.RequireFromString("1"), PriceSet: true,
			ImageURLs: []string{m.origin.URL + file},
		}, "")
		if err != nil {
			return renderTotal{}, err
		}
		ids = append(ids, int64(p.ID))
	}
	sum, err := m.awaitReady(ctx, ids)
	if err != nil {
		return renderTotal{}, err
	}
	m.slots += workerChildren * time.Since(start).Seconds()
	after, err := m.busySeconds()
	m.busy += after - busy
	return sum, err
}

// awaitReady waits until all images of these products are ready.
func (m *workerRenderer) awaitReady(ctx context.Context, ids []int64) (renderTotal, error) {
	const query = `SELECT count(*) FILTER (WHERE status = 'ready'),
		coalesce(max(source_url) FILTER (WHERE status = 'failed'), ''),
		coalesce(sum((SELECT sum((r->>'bytes')::bigint) FROM jsonb_array_elements(renditions::jsonb) r)), 0)
		FROM images WHERE product_id = ANY($1)`
	for {
		var ready int
		var failed string
		var sum renderTotal
		err := m.pool.QueryRow(ctx, query, ids).Scan(&ready, &failed, &sum.bytes)
		switch {
		case err != nil:
			return renderTotal{}, err
		case failed != "":
			return renderTotal{}, fmt.Errorf("the image of %s has failed", failed)
		case ready == len(ids):
			sum.renditions = ready * outputs // dropped renditions were rendered as well
			return sum, nil
		case !m.process.Running():
			return renderTotal{}, errors.New("the worker has ended: " + m.process.State())
		}
		<-time.After(50 * time.Millisecond)
	}
}

// processes implements renderer.
func (m *workerRenderer) processes() []int {
	return append([]int{m.process.PID()}, childrenOf(m.process.PID())...)
}

// busySeconds returns the busy time of all codecs so far, in seconds, by the worker's metric.
func (m *workerRenderer) busySeconds() (float64, error) {
	metrics, err := client.New("http://"+m.process.admin, client.Options{FreshConns: true}).
		Do(context.Background(), http.MethodGet, "/metrics", nil)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(metrics.Body)) {
		if value, ok := strings.CutPrefix(line, "vitrine_codec_busy_seconds_total "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, errors.New("the worker's metrics lack vitrine_codec_busy_seconds_total")
}

// utilization returns the share of the time in which the worker's codecs were busy.
func (m *workerRenderer) utilization() float64 { return m.busy / m.slots }
