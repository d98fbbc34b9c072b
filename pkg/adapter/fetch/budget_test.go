package fetch_test

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/fetch"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/pipeline"
)

const mebi = 1 << 20

// limitedFetcher is a Fetcher with a small budget, and its metrics.
type limitedFetcher struct {
	*fetch.Fetcher
	reg *prometheus.Registry
}

func newLimited(network fetch.Network, total int64, now func() time.Time) limitedFetcher {
	c := config()
	c.MaxInFlight = total
	reg := prometheus.NewRegistry()
	return limitedFetcher{fetch.New(c, bounds(), network, now, reg, zap.NewNop()), reg}
}

// reserved returns the bytes that are reserved.
func (f limitedFetcher) reserved(t *testing.T) (bytes int64) {
	t.Helper()
	families, err := f.reg.Gather()
	for _, family := range families {
		if family.GetName() == "vitrine_fetch_reserved_bytes" {
			return int64(family.GetMetric()[0].GetGauge().GetValue())
		}
	}
	t.Fatalf("no metric vitrine_fetch_reserved_bytes: %v", err)
	return 0
}

// waits returns the number of reservations and the sum of their waiting times.
func (f limitedFetcher) waits(t *testing.T) (n uint64, sum time.Duration) {
	t.Helper()
	families, err := f.reg.Gather()
	for _, family := range families {
		if family.GetName() == "vitrine_fetch_reservation_wait_seconds" {
			h := family.GetMetric()[0].GetHistogram()
			return h.GetSampleCount(), time.Duration(h.GetSampleSum() * float64(time.Second))
		}
	}
	t.Fatalf("no metric vitrine_fetch_reservation_wait_seconds: %v", err)
	return 0, 0
}

// get starts a download of at most maxBytes.
func (f limitedFetcher) get(ctx context.Context, url string, maxBytes int64) chan fetched {
	done := make(chan fetched, 1)
	go func() {
		got, err := f.Fetch(ctx, url, rules(), maxBytes)
		done <- fetched{got, err}
	}()
	return done
}

// fetched is the result of a download.
type fetched struct {
	worker.Download
	err error
}

// completed returns the result of a download, and requires that it has succeeded.
func completed(t *testing.T, done chan fetched) fetched {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-done:
		if got.err != nil {
			t.Fatal(got.err)
		}
		return got
	default:
		t.Fatal("the download has not ended")
		return fetched{}
	}
}

// pending requires that a download has not ended, and that only the given addresses were dialled.
func (fake *fakeNet) pending(t *testing.T, done chan fetched, dialled ...string) {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-done:
		t.Fatalf("the download has ended with %v", got.err)
	default:
	}
	if got := fake.dials(); !slices.Equal(got, dialled) {
		t.Fatalf("dialled %v, want %v", got, dialled)
	}
}

const (
	firstAt = publicV4 + ":80"
	otherAt = otherV4 + ":80"
)

// twoSites has first.test, which answers with text and stays open, and other.test, which answers with a short body.
func twoSites(first string) *fakeNet {
	fake := newFakeNet()
	fake.names["first.test"], fake.names["other.test"] = []string{publicV4}, []string{otherV4}
	fake.dial = func(address string) (net.Conn, error) {
		if address == otherAt {
			return hangUp("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ncontent")(address)
		}
		return script(first)(address)
	}
	return fake
}

const whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst"

func TestBudget(t *testing.T) {
	t.Parallel()
	t.Run("body_holds_memory_until_drop", testBudgetBodyHoldsMemoryUntilDrop)
	t.Run("known_length_releases_memory", testBudgetKnownLengthReleasesMemory)
	t.Run("reservations_are_first_in_first_out", testBudgetReservationsAreFirstInFirstOut)
	t.Run("oversized_download_runs_alone", testBudgetOversizedDownloadRunsAlone)
	t.Run("failure_releases_memory", testBudgetFailureReleasesMemory)
	t.Run("cancelled_wait_dials_nothing", testBudgetCancelledWaitDialsNothing)
	t.Run("concurrent_downloads_stay_within_budget", testBudgetConcurrentDownloadsStayWithinBudget)
	t.Run("buffer_is_limited_to_maximum_length", testBudgetBufferIsLimitedToMaximumLength)
	t.Run("reservation_equals_buffer", testBudgetReservationEqualsBuffer)
}

func testBudgetBodyHoldsMemoryUntilDrop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := twoSites(whole)
		f := newLimited(fake.network(), mebi, time.Now)
		first := completed(t, f.get(t.Context(), "http://first.test/", mebi))
		if got, want := f.reserved(t), int64(cap(first.Body)); got != want || got > 6 {
			t.Errorf("%d bytes are reserved for 5 bytes in a buffer of %d", got, want)
		}
		second := f.get(t.Context(), "http://other.test/", mebi)
		fake.pending(t, second, firstAt) // it waits without an open connection
		<-time.After(time.Hour)          // the time limits have not started
		fake.pending(t, second, firstAt)
		for range 3 {
			first.Discard()
		}
		if got := completed(t, second); string(got.Body) != "content" {
			t.Errorf("got %q", got.Body)
		} else {
			got.Discard()
		}
		if got := f.reserved(t); got != 0 {
			t.Errorf("%d bytes are still reserved", got)
		}
		if n, sum := f.waits(t); n != 2 || sum != time.Hour {
			t.Errorf("%d reservations waited %v in total, want 2 and an hour", n, sum)
		}
		if first.Body != nil {
			t.Error("Drop has not removed the body")
		}
	})
}

func testBudgetKnownLengthReleasesMemory(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	cases := map[string]struct {
		first string
		frees bool
	}{
		"announced":             {ok + "Content-Length: 1000\r\n\r\nand then nothing", true},
		"announced_as_identity": {ok + "Content-Encoding: Identity\r\nContent-Length: 1000\r\n\r\nand then nothing", true},
		"not_announced":         {ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n", false},
		"announced_compressed":  {ok + "Content-Encoding: gzip\r\nContent-Length: 1000\r\n\r\n" + zipped("first")[:12], false},
		"no_headers_yet":        {ok, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := twoSites(c.first)
				f := newLimited(fake.network(), mebi, time.Now)
				ctx, cancel := context.WithCancel(t.Context())
				first := f.get(ctx, "http://first.test/", mebi)
				fake.pending(t, first, firstAt)
				second := f.get(t.Context(), "http://other.test/", mebi-2000)
				if c.frees {
					if got := completed(t, second); f.reserved(t) != 1001+int64(cap(got.Body)) {
						t.Errorf("%d bytes are reserved, want 1001 and %d", f.reserved(t), cap(got.Body))
					}
				} else {
					fake.pending(t, second, firstAt)
				}
				cancel()
				if got := <-first; got.err != context.Canceled { //nolint:errorlint // it has to be unchanged
					t.Errorf("got %v, want context.Canceled", got.err)
				}
				if !c.frees {
					completed(t, second)
				}
			})
		})
	}
}

func testBudgetReservationsAreFirstInFirstOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := twoSites(whole)
		f := newLimited(fake.network(), mebi, time.Now)
		first := completed(t, f.get(t.Context(), "http://first.test/", mebi))
		large := f.get(t.Context(), "http://other.test/", mebi)
		synctest.Wait()
		small := f.get(t.Context(), "http://first.test/", 1000) // there would be enough memory
		fake.pending(t, small, firstAt)
		first.Discard()
		got := completed(t, large)
		completed(t, small)
		if got, want := fake.dials(), []string{firstAt, otherAt, firstAt}; !slices.Equal(got, want) {
			t.Errorf("dialled %v, want %v", got, want)
		}
		got.Discard()
	})
}

func testBudgetOversizedDownloadRunsAlone(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 3*mebi)
	fake := newFakeNet()
	fake.site(t, "large.test", publicV4, "80", answer(http.StatusOK, body, "Content-Length", strconv.Itoa(len(body))))
	f := newLimited(fake.network(), mebi, time.Now)
	got, err := f.Fetch(t.Context(), "http://large.test/", rules(), 4*mebi)
	if err != nil || len(got.Body) != len(body) {
		t.Fatalf("got %d bytes, %v", len(got.Body), err)
	}
	if got := f.reserved(t); got != mebi {
		t.Errorf("%d bytes are reserved, want all %d", got, mebi)
	}
	got.Discard()
	if got := f.reserved(t); got != 0 {
		t.Errorf("%d bytes are still reserved", got)
	}
}

func testBudgetFailureReleasesMemory(t *testing.T) {
	t.Parallel()
	now := time.Now
	cases := map[string]func(*fakeNet) (string, func() time.Time){
		"forbidden":   func(*fakeNet) (string, func() time.Time) { return "http://10.0.0.1/", now },
		"not_a_url":   func(*fakeNet) (string, func() time.Time) { return "::", now },
		"no_name":     func(*fakeNet) (string, func() time.Time) { return "http://nowhere.test/", now },
		"no_answer":   func(fake *fakeNet) (string, func() time.Time) { fake.dial = hangUp(""); return imageURL, now },
		"not_there":   func(fake *fakeNet) (string, func() time.Time) { fake.dial = status("404 Gone"); return imageURL, now },
		"too_large":   func(fake *fakeNet) (string, func() time.Time) { fake.dial = status("200 OK"); return imageURL, now },
		"short":       func(fake *fakeNet) (string, func() time.Time) { fake.dial = hangUp(whole[:40]); return imageURL, now },
		"slow":        func(fake *fakeNet) (string, func() time.Time) { fake.dial = script(whole[:40]); return imageURL, now },
		"headers_off": func(fake *fakeNet) (string, func() time.Time) { fake.dial = script(""); return imageURL, now },
		"panic": func(fake *fakeNet) (string, func() time.Time) {
			fake.dial = status("503 No")
			return imageURL, panics(3)
		},
	}
	for name, prepare := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := newFakeNet()
				fake.names["images.test"] = []string{publicV4}
				url, now := prepare(fake)
				f := newLimited(fake.network(), mebi, now)
				func() {
					defer func() {
						if recover() != nil != (name == "panic") {
							t.Error("unexpected panic, or no panic")
						}
					}()
					if _, err := f.Fetch(t.Context(), url, rules(), mebi); err == nil {
						t.Error("got no error")
					}
				}()
				if got := f.reserved(t); got != 0 {
					t.Errorf("%d bytes are still reserved", got)
				}
			})
		})
	}
}

// status answers every connection with a status and an announced length of more than mebi bytes.
func status(text string) func(string) (net.Conn, error) {
	return script("HTTP/1.1 " + text + "\r\nContent-Length: 1048577\r\nRetry-After: 7\r\n\r\n")
}

// panics is a clock that panics after that many readings and one more, which is the first of the reservation.
func panics(after int) func() time.Time {
	reads := 0
	return func() time.Time {
		if reads++; reads > after+1 {
			panic("the clock")
		}
		return time.Now()
	}
}

func testBudgetCancelledWaitDialsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := twoSites(whole)
		f := newLimited(fake.network(), mebi, time.Now)
		first := completed(t, f.get(t.Context(), "http://first.test/", mebi))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got := <-f.get(ctx, "http://other.test/", mebi)
		if got.err != context.DeadlineExceeded || got.Body != nil { //nolint:errorlint // it has to be unchanged
			t.Errorf("got %q, %v, want context.DeadlineExceeded unchanged", got.Body, got.err)
		}
		if got, want := fake.dials(), []string{firstAt}; !slices.Equal(got, want) {
			t.Errorf("dialled %v, want %v", got, want)
		}
		first.Discard()
		completed(t, f.get(t.Context(), "http://other.test/", mebi)) // the cancelled one blocks no other
	})
}

func testBudgetConcurrentDownloadsStayWithinBudget(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 5000, 100_000, 300_000, 700_000}
	fake := newFakeNet()
	fake.site(t, "many.test", publicV4, "80", http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		size, _ := strconv.Atoi(req.URL.Query().Get("size"))
		if req.URL.Query().Has("chunked") {
			_ = http.NewResponseController(rw).Flush()
		} else {
			rw.Header().Set("Content-Length", strconv.Itoa(size))
		}
		_, _ = rw.Write(make([]byte, size))
	}))
	f := newLimited(fake.network(), 2*mebi, time.Now)
	var mu sync.Mutex
	var held, maxHeld int
	hold := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		held += n
		maxHeld = max(maxHeld, held)
	}
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			url := "http://many.test/?size=" + strconv.Itoa(sizes[i%len(sizes)])
			if i%2 == 0 {
				url += "&chunked"
			}
			got, err := f.Fetch(t.Context(), url, rules(), 800_000)
			if err != nil {
				t.Error(err)
				return
			}
			hold(cap(got.Body))
			hold(-cap(got.Body))
			got.Discard()
		})
	}
	all.Wait()
	if maxHeld > 2*mebi || maxHeld < 700_000 {
		t.Errorf("all bodies used %d bytes, of %d", maxHeld, 2*mebi)
	}
	if got := f.reserved(t); got != 0 {
		t.Errorf("%d bytes are still reserved", got)
	}
}

func testBudgetBufferIsLimitedToMaximumLength(t *testing.T) {
	t.Parallel()
	const size, maxBytes = 2*mebi + 1, 2*mebi + 1000
	body := strings.Repeat("x", size)
	plain := answer(http.StatusOK, body, "Content-Length", strconv.Itoa(size))
	cases := map[string]struct {
		handler http.Handler
		maxCap  int
	}{
		"announced":  {plain, size + 1},
		"in chunks":  {answer(http.StatusOK, body), maxBytes + 1},
		"compressed": {answer(http.StatusOK, zipped(body), "Content-Encoding", "gzip"), maxBytes + 1},
	}
	for name, c := range cases {
		f := newLimited(served(t, c.handler).network(), 25*mebi, time.Now)
		got, err := f.Fetch(t.Context(), imageURL, rules(), maxBytes)
		if err != nil || len(got.Body) != size || cap(got.Body) > c.maxCap {
			t.Errorf("%s: %d bytes in a buffer of %d, %v, want %d in %d", name, len(got.Body), cap(got.Body), err, size, c.maxCap)
		}
	}
}

func testBudgetReservationEqualsBuffer(t *testing.T) {
	t.Parallel()
	cases := map[string]http.Handler{
		"announced": answer(http.StatusOK, "content", "Content-Length", "7"),
		"in chunks": http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(rw).Flush()
			_, _ = rw.Write([]byte("content"))
		}),
		"compressed": answer(http.StatusOK, zipped("content"), "Content-Encoding", "gzip"),
	}
	for name, handler := range cases {
		f := newLimited(served(t, handler).network(), 25*mebi, time.Now)
		got, err := f.Fetch(t.Context(), imageURL, rules(), 6*mebi)
		if reserved := f.reserved(t); err != nil || reserved != int64(cap(got.Body)) || reserved > 70_000 {
			t.Errorf("%s: %d bytes are reserved for a buffer of %d, %v", name, reserved, cap(got.Body), err)
		}
	}
}

func TestConfigFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		set    int64
		images int
		want   int64
	}{{0, 4, 100 * mebi}, {0, 0, 25 * mebi}, {0, 1000, 512 * mebi}, {64 * mebi, 4, 64 * mebi}} {
		if got := (fetch.Config{MaxInFlight: c.set}).For(c.images).MaxInFlight; got != c.want {
			t.Errorf("%d for %d images: got %d, want %d", c.set, c.images, got, c.want)
		}
	}
	if got := int64(pipeline.Default().Spec.Limits.MaxBytes); got != 25*mebi {
		t.Errorf("the default pipeline takes %d bytes, want the default per image", got)
	}
}

// Originals that are read from the store share the memory of downloads.
func TestReserve(t *testing.T) {
	t.Parallel()
	f := newLimited(fetch.Network{}, 10*mebi, time.Now)
	release, err := f.Reserve(t.Context(), 8*mebi)
	if err != nil || f.reserved(t) != 8*mebi {
		t.Fatalf("reserved %d bytes, %v", f.reserved(t), err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Reserve(ended, 8*mebi); err == nil {
		t.Error("more than the budget is reserved")
	}
	release()
	release() // harmless
	if got := f.reserved(t); got != 0 {
		t.Errorf("%d bytes are still reserved", got)
	}
}
