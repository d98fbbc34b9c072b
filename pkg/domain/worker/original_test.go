package worker_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/slots"
	"vitrine.io/pkg/test/catalogtest"
)

// originals is a bucket of originals with one object.
type originals struct {
	stored map[string]string // key: content type
	bodies map[string]string
	body   string
	err    error // of Read
	putErr error
}

const originalKey = "originals/1/2/1-y/source"

func (o *originals) Put(_ context.Context, key, contentType string, body io.ReadSeeker, _ int64) error {
	if o.putErr != nil {
		return o.putErr
	}
	data, err := io.ReadAll(body)
	o.stored[key], o.bodies[key] = contentType, string(data)
	return err
}

func (o *originals) Read(_ context.Context, key string, limit int64) ([]byte, error) {
	switch {
	case o.err != nil:
		return nil, o.err
	case key != originalKey:
		return nil, fault.New(fault.NotFound, "object_not_found", "no")
	case int64(len(o.body)) > limit:
		return nil, fault.New(fault.Conflict, "object_too_large", "larger")
	}
	return []byte(o.body), nil
}

// memory counts the bytes that are reserved.
type memory struct {
	reserved int64
	most     int64
}

func (m *memory) Reserve(_ context.Context, bytes int64) (func(), error) {
	m.reserved += bytes
	m.most = max(m.most, m.reserved)
	released := false
	return func() {
		if !released {
			released, m.reserved = true, m.reserved-bytes
		}
	}, nil
}

// keeper is a fixture whose attempts keep the source, and read an original if the job is that of a backfill.
type keeper struct {
	*fixture
	originals *originals
	memory    *memory
	fetched   int
	skip      bool
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	k := &keeper{
		fixture: newFixture(t), memory: &memory{},
		originals: &originals{stored: map[string]string{}, bodies: map[string]string{}, body: "original"},
	}
	k.deps.Originals, k.deps.Memory, k.deps.Hosts = k.originals, k.memory, slots.New[string]()
	k.Worker = worker.New(k.deps, workerConfig(), k.newRegistry())
	sum := sha256.Sum256([]byte("original"))
	begin := k.begin
	k.begin = func(ctx context.Context, j catalog.Job) (catalog.Attempt, error) {
		a, err := begin(ctx, j)
		a.OriginalPrefix = "originals/1/2/2-z/"
		if j.BackfillID != 0 {
			a.Original = catalog.Original{Key: originalKey, SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len("original"))}
			a.SkipMissing = k.skip
		}
		return a, err
	}
	fetch := k.fetch
	k.fetch = func(ctx context.Context, url string) (worker.Download, error) {
		k.fetched++
		return fetch(ctx, url)
	}
	return k
}

// newRegistry replaces the registry of the metrics.
func (k *keeper) newRegistry() *prometheus.Registry {
	k.reg = prometheus.NewRegistry()
	return k.reg
}

// originalJob returns the job of a backfill that is to read an original.
func (k *keeper) originalJob() event.Message {
	return event.New("job-1", "1", event.ImageBackfill{
		ProductID: 1, ImageID: 2, SourceURL: "https://example.com/a.jpg", PipelineHash: k.pipe.Hash(), BackfillID: 5,
		Source: event.SourceOriginal,
	})
}

func (k *keeper) handle(t *testing.T, m event.Message) {
	t.Helper()
	if err := k.Handle(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if k.memory.reserved != 0 {
		t.Errorf("%d bytes of memory are still reserved", k.memory.reserved)
	}
}

// want reports other calls, or another number of downloads.
func (k *keeper) want(t *testing.T, fetched int, calls ...string) {
	t.Helper()
	if !slices.Equal(k.calls, calls) || k.fetched != fetched {
		t.Errorf("called %v with %d downloads, want %v with %d", k.calls, k.fetched, calls, fetched)
	}
}

// count returns how often originals had that result.
func (k *keeper) count(t *testing.T, result string) int {
	t.Helper()
	families, err := k.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "vitrine_worker_originals_total" && m.GetLabel()[0].GetValue() == result {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return -1
}

func TestOriginals(t *testing.T) {
	t.Parallel()
	t.Run("source_is_kept", testOriginalsKept)
	t.Run("source_is_not_kept_without_a_prefix_or_a_bucket", testOriginalsNotKept)
	t.Run("failed_upload_defers_the_image", testOriginalsPutFails)
	t.Run("backfill_reads_the_original", testOriginalsRead)
	t.Run("original_takes_no_host_slot", testOriginalsHostSlot)
	t.Run("missing_or_damaged_original_is_downloaded", testOriginalsFetched)
	t.Run("missing_or_damaged_original_is_skipped", testOriginalsSkipped)
	t.Run("job_goes_on_if_a_damaged_original_is_not_forgotten", testOriginalsNotForgotten)
	t.Run("canary_forgets_no_original", testOriginalsCanary)
	t.Run("download_instead_of_an_original_needs_a_host_slot", testOriginalsBusyHost)
	t.Run("store_that_is_away_defers_the_image", testOriginalsAway)
	t.Run("bucket_that_is_away_stops_other_jobs_only_if_originals_are_kept", testOriginalsBreaker)
	t.Run("original_above_the_limit_is_too_large", testOriginalsTooLarge)
	t.Run("metrics_are_valid", testOriginalsMetrics)
}

func testOriginalsKept(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.handle(t, k.message())
	k.want(t, 1, "begin", "finish")
	const key = "originals/1/2/2-z/source"
	if k.result.OriginalKey != key || k.originals.stored[key] != "image/png" || k.originals.bodies[key] != "source" {
		t.Errorf("finished with %q, stored %v %v", k.result.OriginalKey, k.originals.stored, k.originals.bodies)
	}
	if len(k.result.Renditions) != 3 || k.count(t, "kept") != 1 {
		t.Errorf("got %+v, %d kept", k.result, k.count(t, "kept"))
	}
}

func testOriginalsNotKept(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	if err := w.Handle(t.Context(), w.message()); err != nil || w.result.OriginalKey != "" {
		t.Errorf("without a prefix: got %q, %v", w.result.OriginalKey, err)
	}
	k := newKeeper(t)
	k.deps.Originals = nil
	k.Worker = worker.New(k.deps, workerConfig(), k.newRegistry())
	k.handle(t, k.message())
	if k.result.OriginalKey != "" {
		t.Errorf("without a bucket: got %q", k.result.OriginalKey)
	}
	k.handle(t, k.originalJob())
	k.want(t, 2, "begin", "finish", "begin", "finish")
}

func testOriginalsPutFails(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.originals.putErr = fault.New(fault.Unavailable, "storage_unavailable", "down")
	k.handle(t, k.message())
	k.want(t, 1, "begin", "defer")
	if k.failure.Code != media.StorageFailed {
		t.Errorf("got %v", k.failure)
	}
}

func testOriginalsRead(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	var rendered string
	render := k.render
	k.render = func(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error) {
		rendered = string(source)
		return render(ctx, source, spec)
	}
	k.handle(t, k.originalJob())
	k.want(t, 0, "begin", "finish")
	if rendered != "original" || k.result.SourceBytes != 8 || k.result.OriginalKey != "" || len(k.originals.stored) != 0 {
		t.Errorf("rendered %q, finished with %+v, stored %v", rendered, k.result, k.originals.stored)
	}
	if k.memory.most != 8 || k.count(t, "read") != 1 {
		t.Errorf("reserved %d bytes, %d read", k.memory.most, k.count(t, "read"))
	}
}

// takeHost takes all slots of the host.
func (k *keeper) takeHost(t *testing.T) {
	t.Helper()
	for range k.pipe.Spec.Fetch.PerHost {
		if _, ok := k.deps.Hosts.TryAcquire("example.com", k.pipe.Spec.Fetch.PerHost); !ok {
			t.Fatal("no slot")
		}
	}
}

func testOriginalsHostSlot(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.takeHost(t)
	k.handle(t, k.originalJob())
	k.want(t, 0, "begin", "finish")
}

// unreadable are ways in which an original is missing or damaged, with their result.
func unreadable() map[string]func(o *originals) string {
	return map[string]func(o *originals) string{
		"missing": func(o *originals) string {
			o.err = fault.New(fault.NotFound, "object_not_found", "no")
			return "missing"
		},
		"longer":        func(o *originals) string { o.body += "X"; return "damaged" },
		"shorter":       func(o *originals) string { o.body = o.body[1:]; return "damaged" },
		"other_content": func(o *originals) string { o.body = "originaX"; return "damaged" },
	}
}

// outcomeOf returns the calls of a job with that outcome, whose original is missing or damaged. Only a damaged one is
// forgotten: many may be missing by accident.
func outcomeOf(result, outcome string) []string {
	if result == "damaged" {
		return []string{"begin", "forget " + originalKey, outcome}
	}
	return []string{"begin", outcome}
}

// testOriginalsNotForgotten is the test that the job goes on if the database does not forget a damaged original.
func testOriginalsNotForgotten(t *testing.T) {
	t.Parallel()
	for err, warnings := range map[error]int{
		catalog.ErrDone: 0, fault.New(fault.Unavailable, "database_unavailable", "down"): 1,
	} {
		k := newKeeper(t)
		k.originals.body = "originaX"
		k.recordErr = func(method string) error {
			if method == "forget" {
				return err
			}
			return nil
		}
		k.handle(t, k.originalJob())
		k.want(t, 1, outcomeOf("damaged", "finish")...)
		if got := k.logs.FilterMessage("damaged original not forgotten").Len(); got != warnings {
			t.Errorf("%v: got %d warnings, want %d", err, got, warnings)
		}
	}
}

// testOriginalsCanary is the test that a canary changes no image: it leaves a damaged original to the backfill.
func testOriginalsCanary(t *testing.T) {
	t.Parallel()
	s := newSamples(t)
	s.deps.Originals = &originals{body: "originaX"}
	s.Worker = worker.New(s.deps, workerConfig(), prometheus.NewRegistry())
	s.attempt.Original = catalog.Original{Key: originalKey, SHA256: "00", Bytes: int64(len("originaX"))}
	s.handle(t)
	if len(s.calls) != 0 || s.state != backfill.SampleDone || s.logs.FilterMessage("original not read").Len() != 1 {
		t.Errorf("called %v, ended as %q", s.calls, s.state)
	}
}

func testOriginalsFetched(t *testing.T) {
	t.Parallel()
	for name, damage := range unreadable() {
		k := newKeeper(t)
		result := damage(k.originals)
		k.handle(t, k.originalJob())
		k.want(t, 1, outcomeOf(result, "finish")...)
		if k.result.SourceSHA256 != "ab" || k.result.OriginalKey != "originals/1/2/2-z/source" || k.count(t, result) != 1 {
			t.Errorf("%s: finished with %+v", name, k.result)
		}
		if _, ok := k.deps.Hosts.TryAcquire("example.com", 1); !ok {
			t.Errorf("%s: the host slot is still in use", name)
		}
	}
}

func testOriginalsSkipped(t *testing.T) {
	t.Parallel()
	for name, damage := range unreadable() {
		k := newKeeper(t)
		k.skip = true
		result := damage(k.originals)
		k.handle(t, k.originalJob())
		k.want(t, 0, outcomeOf(result, "skip")...)
		if k.logs.FilterMessage("image skipped").Len() != 1 {
			t.Errorf("%s: the log does not say so", name)
		}
	}
}

func testOriginalsBusyHost(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.originals.err = fault.New(fault.NotFound, "object_not_found", "no")
	k.takeHost(t)
	k.handle(t, k.originalJob())
	k.want(t, 0, "begin", "defer")
	if k.failure.Code != media.HostBusy {
		t.Errorf("got %v", k.failure)
	}
}

func testOriginalsAway(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.skip = true // an outage skips nothing
	k.originals.err = fault.New(fault.Unavailable, "storage_unavailable", "down")
	k.handle(t, k.originalJob())
	k.want(t, 0, "begin", "defer")
	if k.failure.Code != media.StorageFailed {
		t.Errorf("got %v", k.failure)
	}
}

func testOriginalsBreaker(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		k := newKeeper(t)
		reg := prometheus.NewRegistry()
		k.pipe.Spec.Originals.Keep = keep
		k.useBreakers(worker.NewBreakers(breakerConfig(), reg, zap.NewNop(), worker.Probe{Dependency: worker.DependencyS3}))
		k.originals.err = fault.New(fault.Unavailable, "storage_unavailable", "down")
		for range breakerConfig().Faults {
			k.handle(t, k.originalJob())
		}
		if got := catalogtest.Metric(t, reg, "vitrine_worker_breaker_open"); (got == 1) != keep {
			t.Errorf("keep %t: the gauge of the breaker is %v", keep, got)
		}
		if k.fetched != 0 || !slices.Equal(k.calls[:2], []string{"begin", "defer"}) {
			t.Errorf("keep %t: called %v with %d downloads, want deferred jobs", keep, k.calls, k.fetched)
		}
	}
}

func testOriginalsTooLarge(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.pipe.Spec.Limits.MaxBytes = 7
	k.handle(t, k.originalJob())
	k.want(t, 0, "begin", "fail")
	if k.failure.Code != media.TooLarge {
		t.Errorf("got %v", k.failure)
	}
}

func testOriginalsMetrics(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	if problems, err := testutil.GatherAndLint(k.reg); err != nil || len(problems) > 0 {
		t.Errorf("got %v, %v", problems, err)
	}
}
