package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
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
	"vitrine.io/pkg/foundation/process"
	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/port"
	"vitrine.io/pkg/test/servers"
)

// programs returns the directory of our programs: of make test, or built here.
var programs = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("VITRINE_TEST_BIN_DIR"); dir != "" {
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "vitrine", "bench-bin") // always the same: nothing piles up
	out, err := exec.Command("go", "build", "-o", dir+"/", "vitrine.io/cmd/worker", "vitrine.io/cmd/codec").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
})

// codecMaker is our codec child alone, fed from memory.
type codecMaker struct {
	pool   *codec.Pool
	spec   pipeline.Spec
	bodies map[string][]byte // by file
	pids   []int
}

// newCodecMaker starts one child as the worker would, but one that is never replaced.
func newCodecMaker(tb testing.TB, files []string, spec pipeline.Spec) *codecMaker {
	tb.Helper()
	bin, err := programs()
	must(tb, err)
	spec.Limits.Deadline = pipeline.Duration(10 * time.Minute)
	m := &codecMaker{spec: spec, bodies: map[string][]byte{}}
	for _, file := range files {
		m.bodies[file], err = os.ReadFile(file)
		must(tb, err)
	}
	path := filepath.Join(tb.TempDir(), "codec") // by which the child is told from others
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
		tb.Fatalf("one codec was started, and %d are there", len(m.pids))
	}
	return m
}

// make implements maker.
func (m *codecMaker) make(files []string) (made, error) {
	var sum made
	for _, file := range files {
		out, err := m.pool.Render(context.Background(), m.bodies[file], m.spec)
		if err != nil {
			return made{}, fmt.Errorf("render %s: %w", file, err)
		}
		sum.renditions += len(out.Files) + len(out.Dropped) // what is dropped was made as well
		for _, o := range out.Files {
			sum.bytes += len(o.Body)
		}
	}
	return sum, nil
}

// processes implements maker.
func (m *codecMaker) processes() []int { return m.pids }

// workerMaker is a whole worker with two codecs: from the request in Kafka and the source on HTTP to the objects in S3 and
// the row in Postgres. The products are made here, and so is the origin.
type workerMaker struct {
	*stage
	user    catalog.UserID
	origin  *httptest.Server
	process *process.Process
	admin   string
	busy    float64 // seconds of codecs, as the worker counts them
	slots   float64 // seconds that they could have worked
}

// outputs is what the default pipeline makes of a picture.
const outputs = 6

// workerChildren is how many codecs the worker has: one a CPU of the machine that the goals were set for.
const workerChildren = 2

func newWorkerMaker(tb testing.TB) *workerMaker {
	tb.Helper()
	m := &workerMaker{stage: newStage(tb)}
	m.cfg.Relay.Rate = 0
	outbox, publisher := m.toKafka(tb, 24)
	mover := relay.New(outbox, publisher, m.cfg.Relay, prometheus.NewRegistry(), m.log.Named("relay"))
	tb.Cleanup(running(tb, mover.Run))
	m.origin = httptest.NewServer(http.FileServer(http.Dir("/")))
	tb.Cleanup(m.origin.Close)
	user, err := m.service.CreateUser(tb.Context(), "Ada", "ada@example.com")
	must(tb, err)
	m.user = user.ID
	m.start(tb)
	return m
}

// start starts the worker and waits until it is ready.
func (m *workerMaker) start(tb testing.TB) {
	tb.Helper()
	bin, err := programs()
	must(tb, err)
	p := pipeline.Default()
	p.Spec.Fetch.AllowCIDRs = []string{"127.0.0.0/8"}
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
	m.admin = port.Addr(tb)
	env := []string{"PATH=" + os.Getenv("PATH"), "GOCOVERDIR=" + cmp.Or(os.Getenv("GOCOVERDIR"), dir)}
	for name, value := range map[string]string{
		"ADMIN_ADDR": m.admin, "LOG_LEVEL": "info", "PIPELINE_FILE": file, "POSTGRES_DSN": m.cfg.Postgres.DSN,
		"KAFKA_BROKERS": strings.Join(m.cfg.Kafka.Brokers, ","), "KAFKA_TOPIC_PREFIX": m.cfg.Kafka.TopicPrefix,
		"KAFKA_REPLICATION": "1", "KAFKA_MIN_ISR": "1", "KAFKA_PARTITIONS": "24",
		"REDIS_ADDRS": strings.Join(m.cfg.Redis.Addrs, ","), "REDIS_KEY_PREFIX": m.cfg.Redis.KeyPrefix,
		"S3_ENDPOINT": bucket.Endpoint, "S3_REGION": bucket.Region, "S3_BUCKET": bucket.Bucket,
		"S3_ACCESS_KEY": bucket.AccessKey, "S3_SECRET_KEY": bucket.SecretKey,
		"CODEC_PATH": filepath.Join(bin, "codec"), "CODEC_CHILDREN": strconv.Itoa(workerChildren),
	} {
		env = append(env, "VITRINE_"+name+"="+value)
	}
	forkThread := process.NewForkThread()
	tb.Cleanup(forkThread.Close)
	m.process = &process.Process{
		Name: "worker", Argv: []string{filepath.Join(bin, "worker")}, Dir: dir, Log: filepath.Join(dir, "worker.log"), Env: env,
		Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, StopTimeout: time.Minute, ForkThread: forkThread,
	}
	must(tb, m.process.Start())
	tb.Cleanup(func() { must(tb, m.process.Stop()) })
	m.await(tb)
}

// await returns when the worker says that it is ready.
func (m *workerMaker) await(tb testing.TB) {
	tb.Helper()
	api := client.New("http://"+m.admin, client.Options{FreshConns: true})
	for until := time.Now().Add(2 * time.Minute); ; <-time.After(50 * time.Millisecond) {
		err := api.Call(tb.Context(), http.MethodGet, "/readyz", nil, http.StatusOK, nil)
		if err == nil {
			return
		}
		if !m.process.Running() || time.Now().After(until) {
			tb.Fatalf("the worker is not ready: %v %s\n%s", err, m.process.State(), m.process.Tail())
		}
	}
}

// make implements maker: a product with one picture for each file.
func (m *workerMaker) make(files []string) (made, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	busy, err := m.busySeconds()
	if err != nil {
		return made{}, err
	}
	began := time.Now()
	var ids []int64
	for _, file := range files {
		p, err := m.service.Create(ctx, catalog.NewProductInput{
			UserID: m.user, Name: "Photograph", Price: decimal.RequireFromString("1"), PriceSet: true,
			ImageURLs: []string{m.origin.URL + file},
		}, "")
		if err != nil {
			return made{}, err
		}
		ids = append(ids, int64(p.ID))
	}
	sum, err := m.settled(ctx, ids)
	if err != nil {
		return made{}, err
	}
	m.slots += workerChildren * time.Since(began).Seconds()
	after, err := m.busySeconds()
	m.busy += after - busy
	return sum, err
}

// settled waits until every picture of these products is ready.
func (m *workerMaker) settled(ctx context.Context, ids []int64) (made, error) {
	const ask = `SELECT count(*) FILTER (WHERE status = 'ready'),
		coalesce(max(source_url) FILTER (WHERE status = 'failed'), ''),
		coalesce(sum((SELECT sum((r->>'bytes')::bigint) FROM jsonb_array_elements(renditions::jsonb) r)), 0)
		FROM images WHERE product_id = ANY($1)`
	for {
		var ready int
		var failed string
		var sum made
		err := m.pool.QueryRow(ctx, ask, ids).Scan(&ready, &failed, &sum.bytes)
		switch {
		case err != nil:
			return made{}, err
		case failed != "":
			return made{}, fmt.Errorf("the picture of %s has failed", failed)
		case ready == len(ids):
			sum.renditions = ready * outputs // what was dropped was made as well
			return sum, nil
		case !m.process.Running():
			return made{}, errors.New("the worker has ended: " + m.process.State())
		}
		<-time.After(50 * time.Millisecond)
	}
}

// processes implements maker.
func (m *workerMaker) processes() []int {
	return append([]int{m.process.PID()}, childrenOf(m.process.PID())...)
}

// busySeconds is how long all codecs of the worker together have had pictures so far, by its metrics.
func (m *workerMaker) busySeconds() (float64, error) {
	metrics, err := client.New("http://"+m.admin, client.Options{FreshConns: true}).
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

// utilization is the share of its time that a codec of the worker had a picture.
func (m *workerMaker) utilization() float64 { return m.busy / m.slots }
