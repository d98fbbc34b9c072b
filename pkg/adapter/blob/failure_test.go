package blob_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/port"
)

// store is a store that answers as a test wants, and what it was asked.
type store struct {
	server *httptest.Server
	mu     sync.Mutex
	asked  []string // method and query
}

func serve(t *testing.T, answer http.HandlerFunc) *store {
	t.Helper()
	s := &store{}
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.Method+" "+r.URL.RequestURI())
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.server.Close)
	return s
}

func (s *store) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

// open returns the bucket "pictures" of the store.
func (s *store) open(t *testing.T, edit ...func(*blob.Config)) (*blob.Bucket, *prometheus.Registry) {
	t.Helper()
	cfg := settings(s.server.URL, "pictures")
	for _, e := range edit {
		e(&cfg)
	}
	reg := prometheus.NewRegistry()
	b, err := blob.New(cfg, reg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b, reg
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
}

func putX(ctx context.Context, b *blob.Bucket) error {
	return b.Put(ctx, "a/b", "image/png", strings.NewReader("x"), 1)
}

func TestAStoreThatStumblesIsAskedAgain(t *testing.T) {
	t.Parallel()
	var tries atomic.Int64
	var bodies bytes.Buffer
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(&bodies, r.Body)
		if tries.Add(1) < 3 {
			refuse(w, http.StatusServiceUnavailable, "SlowDown")
		}
	})
	b, _ := s.open(t)
	if err := putX(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := bodies.String(); got != "xxx" {
		t.Errorf("bodies sent: got %q, want the whole body each time", got)
	}
}

func TestAnEmptyPageIsNotTheEnd(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		if r.URL.Query().Get("continuation-token") == "" { // as after many deleted versions
			fmt.Fprint(w, `<ListBucketResult><IsTruncated>true</IsTruncated>`+
				`<NextContinuationToken>on</NextContinuationToken></ListBucketResult>`)
			return
		}
		fmt.Fprint(w, `<ListBucketResult><IsTruncated>false</IsTruncated>`+
			`<Contents><Key>products/1</Key><Size>7</Size></Contents></ListBucketResult>`)
	})
	b, _ := s.open(t)
	found, more, err := b.Page(t.Context(), "products/", "", 10)
	if err != nil || more || len(found) != 1 || found[0].Key != "products/1" || found[0].Size != 7 {
		t.Errorf("got %+v, more %t and %v, want the object behind the empty page", found, more, err)
	}
}

func TestAStoreThatStaysDownIsAskedThreeTimes(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusInternalServerError, "InternalError")
	})
	b, _ := s.open(t)
	err := putX(t.Context(), b)
	if !fault.Is(err, fault.Unavailable) || fault.CodeOf(err) != "storage_unavailable" {
		t.Errorf("got %v, want storage_unavailable", err)
	}
	if got := len(s.requests()); got != 3 {
		t.Errorf("got %d requests, want 3", got)
	}
}

func TestAStoreThatHangsIsLeft(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	s := serve(t, func(_ http.ResponseWriter, _ *http.Request) { <-gone })
	t.Cleanup(func() { close(gone) })
	b, _ := s.open(t, func(c *blob.Config) { c.AttemptTimeout, c.MaxAttempts = 100*time.Millisecond, 2 })
	if err := putX(t.Context(), b); fault.CodeOf(err) != "storage_unavailable" {
		t.Errorf("got %v, want storage_unavailable", err)
	}
	if got := len(s.requests()); got != 2 {
		t.Errorf("got %d requests, want 2", got)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	b, _ := s.open(t, func(c *blob.Config) { c.MaxAttempts, c.Endpoint = 1, "http://"+port.Addr(t) })
	_, _, getErr := b.Get(t.Context(), "a/b")
	_, headErr := b.Head(t.Context(), "a/b")
	for what, err := range map[string]error{
		"put": putX(t.Context(), b), "get": getErr, "head": headErr, "ping": b.Ping(t.Context()),
		"ensure": b.EnsureBucket(t.Context()), "delete": b.DeletePrefix(t.Context(), "a/"),
	} {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: got %v, want Unavailable", what, err)
		}
	}
}

func TestWhatTheStoreSaysIsClassified(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status int
		code   string
		kind   fault.Kind
		want   string
	}{
		{http.StatusForbidden, "AccessDenied", fault.Unavailable, "storage_denied"},
		{http.StatusForbidden, "SignatureDoesNotMatch", fault.Unavailable, "storage_denied"},
		{http.StatusForbidden, "InvalidAccessKeyId", fault.Unavailable, "storage_denied"},
		{http.StatusNotFound, "NoSuchBucket", fault.Unavailable, "bucket_missing"},
		{http.StatusNotFound, "NoSuchKey", fault.NotFound, "object_not_found"},
		{http.StatusInsufficientStorage, "XMinioStorageFull", fault.Unavailable, "storage_unavailable"},
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) { refuse(w, test.status, test.code) })
		b, _ := s.open(t, func(c *blob.Config) { c.MaxAttempts = 1 })
		_, _, err := b.Get(t.Context(), "a/b")
		if fault.KindOf(err) != test.kind || fault.CodeOf(err) != test.want {
			t.Errorf("%s: got %v, want %s", test.code, err, test.want)
		}
		if !strings.Contains(err.Error(), test.code) {
			t.Errorf("%s: the log would not show it: %v", test.code, err)
		}
	}
}

const onePage = `<ListBucketResult><Contents><Key>a/1</Key></Contents><Contents><Key>a/2</Key></Contents></ListBucketResult>`

func TestADeletionThatTheStoreRefusesIsAnError(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]fault.Kind{"AccessDenied": fault.Unavailable, "InternalError": fault.Unavailable} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/xml")
			if r.Method == http.MethodGet {
				fmt.Fprint(w, onePage)
				return
			}
			fmt.Fprintf(w, `<DeleteResult><Error><Key>a/0</Key><Code>NoSuchKey</Code></Error>`+
				`<Error><Key>a/2</Key><Code>%s</Code></Error></DeleteResult>`, code)
		})
		b, _ := s.open(t)
		err := b.DeletePrefix(t.Context(), "a/")
		if !fault.Is(err, want) || !strings.Contains(err.Error(), "a/2") || !strings.Contains(err.Error(), code) {
			t.Errorf("got %v, want %v naming a/2 and %s", err, want, code)
		}
	}
}

func TestADeletionCarriesTheChecksumThatOldStoresAskFor(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		if r.Method == http.MethodGet {
			fmt.Fprint(w, onePage)
			return
		}
		body, _ := io.ReadAll(r.Body)
		sum := md5.Sum(body)
		if got, want := r.Header.Get("Content-Md5"), base64.StdEncoding.EncodeToString(sum[:]); got != want {
			t.Errorf("got Content-MD5 %q, want %q", got, want)
		}
		fmt.Fprint(w, `<DeleteResult/>`)
	})
	b, _ := s.open(t)
	if err := b.DeletePrefix(t.Context(), "a/"); err != nil {
		t.Fatal(err)
	}
	if got := len(s.requests()); got != 2 {
		t.Errorf("got requests %v, want one listing and one deletion", s.requests())
	}
}

func TestABodyThatBreaksOffIsUnavailable(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
	})
	b, reg := s.open(t)
	body, _, err := b.Get(t.Context(), "a/b")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if string(got) != "half" || !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %q, %v, want half and Unavailable", got, err)
	}
	want := "# HELP vitrine_blob_received_bytes_total Bytes of objects that were read.\n" +
		"# TYPE vitrine_blob_received_bytes_total counter\nvitrine_blob_received_bytes_total 4\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "vitrine_blob_received_bytes_total"); err != nil {
		t.Error(err)
	}
}

func TestABucketInAnotherRegionIsMadeThere(t *testing.T) {
	t.Parallel()
	var made atomic.Value
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodPut:
			body, _ := io.ReadAll(r.Body)
			made.Store(string(body))
		}
	})
	b, _ := s.open(t, func(c *blob.Config) { c.Region, c.CreateBucket = "eu-west-1", true })
	if err := b.EnsureBucket(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, _ := made.Load().(string); !strings.Contains(got, "<LocationConstraint>eu-west-1</LocationConstraint>") {
		t.Errorf("got %q, want the region in it", got)
	}
}

// Whoever loses the race for a bucket looks again, a few times: AWS needs a moment to agree that it is there.
func TestABucketThatSomebodyElseIsMakingIsWaitedFor(t *testing.T) {
	t.Parallel()
	var looks atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			refuse(w, http.StatusConflict, "OperationAborted")
		case looks.Add(1) < 3:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	b, _ := s.open(t, func(c *blob.Config) { c.CreateBucket = true })
	if err := b.EnsureBucket(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestABucketThatNeverComesIsAnError(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			refuse(w, http.StatusConflict, "OperationAborted")
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	b, _ := s.open(t, func(c *blob.Config) { c.CreateBucket, c.MaxAttempts = true, 1 })
	if err := b.EnsureBucket(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want Unavailable", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := b.EnsureBucket(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's own error", err)
	}
}

func TestABucketThatMayNotBeMadeIsAnError(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			refuse(w, http.StatusForbidden, "AccessDenied")
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	b, _ := s.open(t, func(c *blob.Config) { c.CreateBucket = true })
	if err := b.EnsureBucket(t.Context()); fault.CodeOf(err) != "storage_denied" {
		t.Errorf("got %v, want storage_denied", err)
	}
}

func TestOperationsAreCounted(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			refuse(w, http.StatusNotFound, "NoSuchKey")
		}
	})
	b, reg := s.open(t)
	if err := putX(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	_, _, _ = b.Get(t.Context(), "a/b")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_ = putX(ended, b)
	want := `# HELP vitrine_blob_operations_total Operations on the object store, by how they ended.
# TYPE vitrine_blob_operations_total counter
vitrine_blob_operations_total{operation="get",outcome="not_found"} 1
vitrine_blob_operations_total{operation="put",outcome="canceled"} 1
vitrine_blob_operations_total{operation="put",outcome="ok"} 1
# HELP vitrine_blob_sent_bytes_total Bytes of objects that were stored.
# TYPE vitrine_blob_sent_bytes_total counter
vitrine_blob_sent_bytes_total 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want),
		"vitrine_blob_operations_total", "vitrine_blob_sent_bytes_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) != 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

func TestRetriesAreLoggedWithoutKeys(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusInternalServerError, "InternalError")
	})
	core, lines := observer.New(zap.DebugLevel)
	b, err := blob.New(settings(s.server.URL, "pictures"), prometheus.NewRegistry(), zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := putX(t.Context(), b); err == nil {
		t.Fatal("got no error")
	}
	if lines.Len() == 0 {
		t.Error("nothing was logged")
	}
	for _, line := range lines.All() {
		if line.LoggerName != "s3" || strings.Contains(line.Message, "vitrine-secret") {
			t.Errorf("got %v", line)
		}
	}
}

// Without keys of our own, the SDK finds some: here in the environment, which is the process' and so this test's alone.
func TestWithoutKeysTheUsualChainIsAsked(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "from-the-environment")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "x")
	t.Setenv("AWS_CONFIG_FILE", "/nowhere")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=from-the-environment/") {
			refuse(w, http.StatusForbidden, "AccessDenied")
		}
	})
	b, _ := s.open(t, func(c *blob.Config) { c.AccessKey, c.SecretKey = "", "" })
	if err := putX(t.Context(), b); err != nil {
		t.Error(err)
	}
	t.Setenv("AWS_MAX_ATTEMPTS", "many")
	cfg := settings(s.server.URL, "pictures")
	cfg.AccessKey, cfg.SecretKey = "", ""
	if _, err := blob.New(cfg, prometheus.NewRegistry(), zap.NewNop()); err == nil {
		t.Error("an environment that the SDK cannot read: got no error")
	}
}
