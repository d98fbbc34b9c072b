package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/adapter/httpapi"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
)

// fakeBulk is a BulkReprocessor that returns result and err, and records its arguments.
type fakeBulk struct {
	result catalog.BulkResult
	err    error

	calls  int
	saved  map[catalog.IdempotencyKey]catalog.SavedResponse
	filter catalog.Filter
	after  catalog.ImageID
	limit  int
}

func (f *fakeBulk) Reprocess(ctx context.Context, filter catalog.Filter, after catalog.ImageID, limit int,
) (catalog.BulkResult, error) {
	f.calls++
	f.filter, f.after, f.limit = filter, after, limit
	if _, ok := ctx.Deadline(); !ok {
		return catalog.BulkResult{}, errors.New("the context has no deadline")
	}
	return f.result, f.err
}

func (f *fakeBulk) ReprocessOnce(ctx context.Context, filter catalog.Filter, after catalog.ImageID, limit int,
	key catalog.IdempotencyKey, respond func(catalog.BulkResult) (catalog.SavedResponse, error),
) (catalog.SavedResponse, bool, error) {
	for earlier, saved := range f.saved {
		if earlier == key {
			return saved, true, nil
		} else if earlier.Key == key.Key {
			return nil, false, catalog.ErrKeyReused
		}
	}
	result, err := f.Reprocess(ctx, filter, after, limit)
	if err != nil {
		return nil, false, err
	}
	saved, err := respond(result)
	f.saved = map[catalog.IdempotencyKey]catalog.SavedResponse{key: saved}
	return saved, false, err
}

// documentedBulk returns the result in docs/api.md.
type documentedBulk struct{ httpapi.BulkReprocessor }

func (documentedBulk) Reprocess(_ context.Context, filter catalog.Filter, _ catalog.ImageID, limit int,
) (catalog.BulkResult, error) {
	want := catalog.Filter{Status: catalog.Failed, Code: media.SourceUnavailable, OlderThan: 36 * time.Hour}
	if filter != want || limit != 50 {
		return catalog.BulkResult{}, fmt.Errorf("called with %+v, %d", filter, limit)
	}
	return catalog.BulkResult{Requested: 48, Skipped: 2, Next: 7301, Spread: 9600 * time.Millisecond}, nil
}

// callBulk sends a request to the admin port's handler.
func callBulk(t testing.TB, bulk httpapi.BulkReprocessor, method, path, body string, headers ...string) answer {
	t.Helper()
	return callBulkLogging(t, zap.NewNop(), bulk, method, path, body, headers...)
}

func callBulkLogging(t testing.TB, log *zap.Logger, bulk httpapi.BulkReprocessor, method, path, body string,
	headers ...string,
) answer {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	httpapi.NewReprocessHandler(bulk, log).ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.String()}
}

const bulkPath, plainJSON = "/images/reprocess", "Content-Type: application/json"

func TestReprocessHandler(t *testing.T) {
	t.Parallel()
	t.Run("filters_are_decoded", testReprocessHandlerFiltersAreDecoded)
	t.Run("wrong_fields_are_listed", testReprocessHandlerWrongFieldsAreListed)
	t.Run("failures", testReprocessHandlerFailures)
	t.Run("key_acts_once", testReprocessHandlerKeyActsOnce)
}

func testReprocessHandlerKeyActsOnce(t *testing.T) {
	t.Parallel()
	bulk := &fakeBulk{result: catalog.BulkResult{Requested: 3}}
	send := func(body string) answer {
		return callBulk(t, bulk, http.MethodPost, bulkPath, body, plainJSON, "Idempotency-Key: k")
	}
	first := send(`{"status":"failed","limit":100}`)
	bulk.result.Requested = 7
	again := send(` {"after":0, "status":"failed"}`)
	if first.status != 200 || again.status != 200 || again.body != first.body || bulk.calls != 1 {
		t.Errorf("got %d %s, then %d %s, in %d calls", first.status, first.body, again.status, again.body, bulk.calls)
	}
	if first.header.Get("Idempotent-Replayed") != "" || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("headers %v, then %v", first.header, again.header)
	}
	for _, other := range []string{
		`{"status":"ready"}`, `{"all":true}`, `{"status":"failed","code":"timeout"}`, `{"status":"failed","older_than":"1h"}`,
		`{"status":"failed","pipeline_hash":"` + strings.Repeat("0f", 32) + `"}`, `{"status":"failed","after":1}`,
		`{"status":"failed","limit":99}`,
	} {
		if got := fieldsOf(wants(t, send(other), 422, "invalid_fields")); !slices.Equal(got, []string{"Idempotency-Key reused"}) {
			t.Errorf("%s: %q", other, got)
		}
	}
	for key := range bulk.saved {
		const fingerprint = "b0c6df9cd0bd746a60ac00c8169e44dd7c986e9df66c24ec3acc28224d9f2724"
		if key != (catalog.IdempotencyKey{Principal: "images", Key: "k", Fingerprint: fingerprint}) {
			t.Errorf("the service got the key %+v", key)
		}
	}
}

func testReprocessHandlerFiltersAreDecoded(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("0f", 32)
	for _, row := range []struct {
		body   string
		filter catalog.Filter
		after  catalog.ImageID
		limit  int
	}{
		{`{"status":"failed"}`, catalog.Filter{Status: catalog.Failed}, 0, 100},
		{`{"code":"timeout","limit":1000,"after":7}`, catalog.Filter{Code: media.Timeout}, 7, 1000},
		{`{"all":true}`, catalog.Filter{}, 0, 100},
		{`{"all":true,"limit":5.0,"after":1e1}`, catalog.Filter{}, 10, 5},
		{`{"all":false,"status":"ready"}`, catalog.Filter{Status: catalog.Ready}, 0, 100},
		{`{"older_than":"1h30m","limit":1,"after":0}`, catalog.Filter{OlderThan: 90 * time.Minute}, 0, 1},
		{`{"pipeline_hash":"` + hash + `"}`, catalog.Filter{PipelineHash: hash}, 0, 100},
		{`{"status":"ready","code":"corrupt","older_than":"36h","pipeline_hash":"` + hash + `"}`,
			catalog.Filter{Status: catalog.Ready, Code: media.Corrupt, OlderThan: 36 * time.Hour, PipelineHash: hash}, 0, 100},
	} {
		bulk := &fakeBulk{result: catalog.BulkResult{Requested: 3, Skipped: 1, Next: 40, Spread: 1500 * time.Millisecond}}
		got := callBulk(t, bulk, http.MethodPost, bulkPath, row.body, plainJSON)
		if want := `{"requested":3,"skipped":1,"next":40,"spread_seconds":2}`; got.status != 200 || got.body != want ||
			got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v %s", row.body, got.status, got.header, got.body)
		}
		if bulk.filter != row.filter || bulk.after != row.after || bulk.limit != row.limit {
			t.Errorf("%s was read as %+v after %d, limit %d", row.body, bulk.filter, bulk.after, bulk.limit)
		}
	}
	got := callBulk(t, &fakeBulk{}, http.MethodPost, bulkPath, `{"status":"failed"}`, plainJSON)
	if want := `{"requested":0,"skipped":0,"next":null,"spread_seconds":0}`; got.body != want {
		t.Errorf("last page: %s", got.body)
	}
}

func testReprocessHandlerWrongFieldsAreListed(t *testing.T) {
	t.Parallel()
	bulk := &fakeBulk{}
	for _, row := range []struct {
		body string
		want []string
	}{
		{`{}`, []string{" required"}},
		{`{"limit":5,"after":7}`, []string{" required"}},
		{`{"all":false}`, []string{" required"}},
		{`{"all":null}`, []string{"/all wrong_type"}},
		{`{"all":true,"status":"ready"}`, []string{"/all unexpected"}},
		{`{"status":"\ud83d"}`, []string{"/status invalid_text"}},
		{`[]`, []string{" wrong_type"}},
		{`{"status":"","code":"","older_than":"","pipeline_hash":""}`, []string{
			"/code unknown_value", "/older_than invalid_duration", "/pipeline_hash invalid_hash", "/status unknown_value",
		}},
		{`{"status":"deleted","code":"no_such_code","older_than":"-1h","pipeline_hash":"` + strings.Repeat("0F", 32) + `"}`,
			[]string{"/code unknown_value", "/older_than invalid_duration", "/pipeline_hash invalid_hash", "/status unknown_value"}},
		{`{"status":null,"code":1,"older_than":36,"pipeline_hash":[],"limit":"5","after":1.5,"all":1}`, []string{
			"/after wrong_type", "/all wrong_type", "/code wrong_type", "/limit wrong_type", "/older_than wrong_type",
			"/pipeline_hash wrong_type", "/status wrong_type",
		}},
		{`{"status":"failed","limit":0,"after":-1}`, []string{"/after out_of_range", "/limit out_of_range"}},
		{`{"status":"failed","limit":1001}`, []string{"/limit out_of_range"}},
		{`{"status":"failed","status":"ready"}`, []string{"/status repeated"}},
		{`{"older_than":"0s"}`, []string{"/older_than invalid_duration"}},
	} {
		p := wants(t, callBulk(t, bulk, http.MethodPost, bulkPath, row.body, plainJSON), 422, "invalid_fields")
		if got := fieldsOf(p); !slices.Equal(got, row.want) {
			t.Errorf("%s\n got %q\nwant %q", row.body, got, row.want)
		}
	}
	got := callBulk(t, bulk, http.MethodPost, bulkPath+"?dry_run=1", `{}`, plainJSON, "Idempotency-Key: ")
	p := wants(t, got, 422, "invalid_fields")
	if got := fieldsOf(p); !slices.Equal(got, []string{" required", "Idempotency-Key required", "dry_run unknown_parameter"}) {
		t.Errorf("outside the body: %q", got)
	}
	got = callBulk(t, bulk, http.MethodPost, bulkPath, `{"all":true}`, "Content-Type: application/json; charset=utf-16")
	wants(t, got, 415, "unsupported_media_type")
	wants(t, callBulk(t, bulk, http.MethodPost, bulkPath, `{`, plainJSON), 400, "bad_json")
	wants(t, callBulk(t, bulk, http.MethodPost, bulkPath, `{"status":"failed"}`), 415, "unsupported_media_type")
	long := `{"status":"failed"` + strings.Repeat(" ", 4<<10) + `}`
	wants(t, callBulk(t, bulk, http.MethodPost, bulkPath, long, plainJSON), 413, "body_too_large")
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		got := callBulk(t, bulk, method, bulkPath, "")
		wants(t, got, 405, "method_not_allowed")
		if got.header.Get("Allow") != "POST" {
			t.Errorf("%s: Allow is %q", method, got.header.Get("Allow"))
		}
	}
	if bulk.calls != 0 {
		t.Errorf("%d wrong requests reached the service", bulk.calls)
	}
}

func testReprocessHandlerFailures(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.InfoLevel)
	const body = `{"status":"failed"}`
	got := callBulkLogging(t, zap.New(core), &fakeBulk{err: fmt.Errorf("commit: %w", catalog.ErrOutcomeUnknown)},
		http.MethodPost, bulkPath, body, plainJSON, "X-Request-Id: mine")
	wants(t, got, 503, "outcome_unknown")
	if got.header.Get("Retry-After") != "2" || got.header.Get("X-Request-Id") != "mine" {
		t.Errorf("headers %v", got.header)
	}
	got = callBulkLogging(t, zap.New(core), &fakeBulk{err: errSecret}, http.MethodPost, bulkPath, body, plainJSON,
		"X-Request-Id: not fit for a log")
	wants(t, got, 500, "internal_error")
	if strings.Contains(got.body, "swordfish") {
		t.Errorf("the cause is shown: %s", got.body)
	}
	wants(t, callBulk(t, &fakeBulk{err: context.DeadlineExceeded}, http.MethodPost, bulkPath, body, plainJSON), 503, "timeout")
	if got := logs.FilterField(zapString("request_id", "mine")).Len(); got != 1 {
		t.Errorf("the first failure has %d lines", got)
	}
	if got := logs.FilterField(zapString("request_id", "reprocess-1")).Len(); got != 1 {
		t.Errorf("the second failure has %d lines", got)
	}
}
