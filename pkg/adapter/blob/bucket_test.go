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

// fakeStore answers with a handler and records the requests.
type fakeStore struct {
	server *httptest.Server
	mu     sync.Mutex
	seen   []string // method and URI
}

// serve starts a store that answers with a handler.
func serve(t *testing.T, answer http.HandlerFunc) *fakeStore {
	t.Helper()
	s := &fakeStore{}
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r.Method+" "+r.URL.RequestURI())
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.server.Close)
	return s
}

func (s *fakeStore) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.seen...)
}

// open returns the bucket "images" of the store, and its metrics.
func (s *fakeStore) open(t *testing.T, edit ...func(*blob.Config)) (*blob.Bucket, *prometheus.Registry) {
	t.Helper()
	cfg := settings(s.server.URL, "images")
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

// refuse answers with an error in S3's format.
func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
}

// putX stores an object of one byte.
func putX(ctx context.Context, b *blob.Bucket) error {
	return b.Put(ctx, "a/b", "image/png", strings.NewReader("x"), 1)
}

func TestRetry(t *testing.T) {
	t.Parallel()
	t.Run("temporary_error_is_retried", testRetryTemporaryErrorIsRetried)
	t.Run("permanent_error_ends_after_max_attempts", testRetryPermanentErrorEndsAfterMaxAttempts)
	t.Run("hanging_store_is_cancelled", testRetryHangingStoreIsCancelled)
	t.Run("log_contains_no_secret", testRetryLogContainsNoSecret)
}

func testRetryTemporaryErrorIsRetried(t *testing.T) {
	t.Parallel()
	var attempts atomic.Int64
	var bodies bytes.Buffer
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(&bodies, r.Body)
		if attempts.Add(1) < 3 {
			refuse(w, http.StatusServiceUnavailable, "SlowDown")
		}
	})
	b, _ := s.open(t)
	if err := putX(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := bodies.String(); got != "xxx" {
		t.Errorf("bodies sent: got %q, want the whole body with each attempt", got)
	}
}

func TestPageContinuesAfterEmptyPage(t *testing.T) {
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
		t.Errorf("got %+v, more %t and %v, want the object after the empty page", found, more, err)
	}
}

func testRetryPermanentErrorEndsAfterMaxAttempts(t *testing.T) {
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

func testRetryHangingStoreIsCancelled(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := serve(t, func(_ http.ResponseWriter, _ *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	b, _ := s.open(t, func(c *blob.Config) { c.AttemptTimeout, c.MaxAttempts = 100*time.Millisecond, 2 })
	if err := putX(t.Context(), b); fault.CodeOf(err) != "storage_unavailable" {
		t.Errorf("got %v, want storage_unavailable", err)
	}
	if got := len(s.requests()); got != 2 {
		t.Errorf("got %d requests, want 2", got)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	t.Run("unreachable_store_is_unavailable", testErrorsUnreachableStoreIsUnavailable)
	t.Run("error_codes_are_classified", testErrorsErrorCodesAreClassified)
	t.Run("short_body_is_unavailable", testErrorsShortBodyIsUnavailable)
}

func testErrorsUnreachableStoreIsUnavailable(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	b, _ := s.open(t, func(c *blob.Config) { c.MaxAttempts, c.Endpoint = 1, "http://"+port.Addr(t) })
	_, _, getErr := b.Get(t.Context(), "a/b")
	for what, err := range map[string]error{
		"put": putX(t.Context(), b), "get": getErr, "ping": b.Ping(t.Context()),
		"ensure": b.EnsureBucket(t.Context()), "delete": b.DeletePrefix(t.Context(), "a/"),
	} {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: got %v, want Unavailable", what, err)
		}
	}
}

func testErrorsErrorCodesAreClassified(t *testing.T) {
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
			t.Errorf("%s: the error does not contain the code: %v", test.code, err)
		}
	}
}

const onePage = `<ListBucketResult><Contents><Key>a/1</Key></Contents><Contents><Key>a/2</Key></Contents></ListBucketResult>`

func TestDeletePrefix(t *testing.T) {
	t.Parallel()
	t.Run("refused_object_is_error", testDeletePrefixRefusedObjectIsError)
	t.Run("request_has_content_md5", testDeletePrefixRequestHasContentMd5)
	t.Run("prefixes_share_a_request_and_not_its_errors", testDeletePrefixesShareARequest)
}

func testDeletePrefixRefusedObjectIsError(t *testing.T) {
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

func testDeletePrefixRequestHasContentMd5(t *testing.T) {
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

// testDeletePrefixesShareARequest deletes five prefixes. The store refuses to list one and an object of another.
func testDeletePrefixesShareARequest(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		prefix := r.URL.Query().Get("prefix")
		switch {
		case r.Method != http.MethodGet:
			fmt.Fprint(w, `<DeleteResult><Error><Key>c/1</Key><Code>AccessDenied</Code></Error></DeleteResult>`)
		case prefix == "b/":
			refuse(w, http.StatusForbidden, "AccessDenied")
		default:
			fmt.Fprintf(w, `<ListBucketResult><Contents><Key>%[1]s1</Key></Contents><Contents><Key>%[1]s2</Key></Contents>`+
				`</ListBucketResult>`, prefix)
		}
	})
	b, _ := s.open(t)
	errs := b.DeletePrefixes(t.Context(), []string{"a/", "b/", "c/", "bad", "d/"})
	for i, want := range []string{"", "storage_denied", "storage_unavailable", "bad_prefix", ""} {
		if want == "" && errs[i] != nil || want != "" && fault.CodeOf(errs[i]) != want {
			t.Errorf("prefix %d: got %v, want %q", i, errs[i], want)
		}
	}
	deletions := 0
	for _, r := range s.requests() {
		if strings.HasPrefix(r, http.MethodPost) {
			deletions++
		}
	}
	if deletions != 1 {
		t.Errorf("got %d deletions in %v, want one for all prefixes", deletions, s.requests())
	}
}

func testErrorsShortBodyIsUnavailable(t *testing.T) {
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
	if got, err := b.Read(t.Context(), "a/b", 100); len(got) != 0 || !fault.Is(err, fault.Unavailable) {
		t.Errorf("read %q, %v, want Unavailable", got, err)
	}
}

func TestEnsureBucket(t *testing.T) {
	t.Parallel()
	t.Run("region_is_sent", testEnsureBucketRegionIsSent)
	t.Run("concurrent_create_is_waited_for", testEnsureBucketConcurrentCreateIsWaitedFor)
	t.Run("missing_bucket_is_error", testEnsureBucketMissingBucketIsError)
	t.Run("denied_create_is_error", testEnsureBucketDeniedCreateIsError)
}

func testEnsureBucketRegionIsSent(t *testing.T) {
	t.Parallel()
	var created atomic.Value
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodPut:
			body, _ := io.ReadAll(r.Body)
			created.Store(string(body))
		}
	})
	b, _ := s.open(t, func(c *blob.Config) { c.Region, c.CreateBucket = "eu-west-1", true })
	if err := b.EnsureBucket(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, _ := created.Load().(string); !strings.Contains(got, "<LocationConstraint>eu-west-1</LocationConstraint>") {
		t.Errorf("got %q, want the region", got)
	}
}

// After a concurrent create, AWS may report the bucket as missing for a moment.
func testEnsureBucketConcurrentCreateIsWaitedFor(t *testing.T) {
	t.Parallel()
	var checks atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			refuse(w, http.StatusConflict, "OperationAborted")
		case checks.Add(1) < 3:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	b, _ := s.open(t, func(c *blob.Config) { c.CreateBucket = true })
	if err := b.EnsureBucket(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func testEnsureBucketMissingBucketIsError(t *testing.T) {
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
		t.Errorf("got %v, want the context's error", err)
	}
}

func testEnsureBucketDeniedCreateIsError(t *testing.T) {
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

func TestMetrics(t *testing.T) {
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
	want := `# HELP vitrine_blob_operations_total Operations on the object store, by outcome.
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

func testRetryLogContainsNoSecret(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusInternalServerError, "InternalError")
	})
	core, lines := observer.New(zap.DebugLevel)
	b, err := blob.New(settings(s.server.URL, "images"), prometheus.NewRegistry(), zap.New(core))
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

// Without keys in the configuration, the SDK reads them from the environment. The test sets the environment and is
// therefore not parallel.
func TestDefaultCredentialChain(t *testing.T) {
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
	cfg := settings(s.server.URL, "images")
	cfg.AccessKey, cfg.SecretKey = "", ""
	if _, err := blob.New(cfg, prometheus.NewRegistry(), zap.NewNop()); err == nil {
		t.Error("an invalid environment: got no error")
	}
}
