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

// thrifty is a Fetcher whose downloads may take total bytes together, and what it shows of itself.
type thrifty struct {
	*fetch.Fetcher
	reg *prometheus.Registry
}

func newThrifty(network fetch.Network, total int64, now func() time.Time) thrifty {
	c := config()
	c.MaxInFlight = total
	reg := prometheus.NewRegistry()
	return thrifty{fetch.New(c, network, now, reg, zap.NewNop()), reg}
}

// reserved returns the bytes that are reserved.
func (f thrifty) reserved(t *testing.T) (bytes int64) {
	t.Helper()
	families, err := f.reg.Gather()
	for _, family := range families {
		if family.GetName() == "vitrine_fetch_reserved_bytes" {
			return int64(family.GetMetric()[0].GetGauge().GetValue())
		}
	}
	t.Fatalf("nothing tells what is reserved: %v", err)
	return 0
}

// waits returns how many downloads have waited, or had no need to, and how long together.
func (f thrifty) waits(t *testing.T) (n uint64, together time.Duration) {
	t.Helper()
	families, err := f.reg.Gather()
	for _, family := range families {
		if family.GetName() == "vitrine_fetch_reservation_wait_seconds" {
			h := family.GetMetric()[0].GetHistogram()
			return h.GetSampleCount(), time.Duration(h.GetSampleSum() * float64(time.Second))
		}
	}
	t.Fatalf("nothing tells what has waited: %v", err)
	return 0, 0
}

// get starts a download of at most maxBytes.
func (f thrifty) get(ctx context.Context, url string, maxBytes int64) chan fetched {
	done := make(chan fetched, 1)
	go func() {
		got, err := f.Fetch(ctx, url, rules(), maxBytes)
		done <- fetched{got, err}
	}()
	return done
}

type fetched struct {
	worker.Download
	err error
}

// has returns what has come, and demands that it did.
func has(t *testing.T, done chan fetched) fetched {
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

// hasNot demands that a download has not ended, and that nobody but those was dialled.
func (w *world) hasNot(t *testing.T, done chan fetched, dialled ...string) {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-done:
		t.Fatalf("the download has ended with %v", got.err)
	default:
	}
	if got := w.dials(); !slices.Equal(got, dialled) {
		t.Fatalf("dialled %v, want %v", got, dialled)
	}
}

const (
	firstAt = publicV4 + ":80"
	otherAt = otherV4 + ":80"
)

// twoSites is a world with first.test, which answers with text and stays open, and other.test, which answers with a picture.
func twoSites(first string) *world {
	w := newWorld()
	w.names["first.test"], w.names["other.test"] = []string{publicV4}, []string{otherV4}
	w.dial = func(address string) (net.Conn, error) {
		if address == otherAt {
			return hangUp("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\npicture")(address)
		}
		return script(first)(address)
	}
	return w
}

const whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst"

func TestABodyKeepsItsMemoryUntilItIsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := twoSites(whole)
		f := newThrifty(w.network(), mebi, time.Now)
		first := has(t, f.get(t.Context(), "http://first.test/", mebi))
		if got, want := f.reserved(t), int64(cap(first.Body)); got != want || got > 6 {
			t.Errorf("%d bytes are reserved for a body of 5 in a buffer of %d", got, want)
		}
		second := f.get(t.Context(), "http://other.test/", mebi)
		w.hasNot(t, second, firstAt) // and nobody is kept waiting with an open connection
		<-time.After(time.Hour)      // which is none of the source's time
		w.hasNot(t, second, firstAt)
		for range 3 {
			first.Drop()
		}
		if got := has(t, second); string(got.Body) != "picture" {
			t.Errorf("got %q", got.Body)
		} else {
			got.Drop()
		}
		if got := f.reserved(t); got != 0 {
			t.Errorf("%d bytes are reserved for nothing", got)
		}
		if n, sum := f.waits(t); n != 2 || sum != time.Hour {
			t.Errorf("%d downloads have waited %v together, want 2 and an hour", n, sum)
		}
		if first.Body != nil {
			t.Error("what was dropped is still there")
		}
	})
}

func TestMemoryIsGivenBackAsSoonAsALengthIsKnown(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	cases := map[string]struct {
		first string
		frees bool
	}{
		"announced":             {ok + "Content-Length: 1000\r\n\r\nand then nothing", true},
		"announced as identity": {ok + "Content-Encoding: Identity\r\nContent-Length: 1000\r\n\r\nand then nothing", true},
		"not announced":         {ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n", false},
		"announced compressed":  {ok + "Content-Encoding: gzip\r\nContent-Length: 1000\r\n\r\n" + zipped("first")[:12], false},
		"no headers yet":        {ok, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := twoSites(c.first)
				f := newThrifty(w.network(), mebi, time.Now)
				ctx, cancel := context.WithCancel(t.Context())
				first := f.get(ctx, "http://first.test/", mebi)
				w.hasNot(t, first, firstAt)
				second := f.get(t.Context(), "http://other.test/", mebi-2000)
				if c.frees {
					if got := has(t, second); f.reserved(t) != 1001+int64(cap(got.Body)) {
						t.Errorf("%d bytes are reserved, want 1001 and %d", f.reserved(t), cap(got.Body))
					}
				} else {
					w.hasNot(t, second, firstAt)
				}
				cancel()
				if got := <-first; got.err != context.Canceled { //nolint:errorlint // exactly as it is
					t.Errorf("got %v, want context.Canceled", got.err)
				}
				if !c.frees {
					has(t, second)
				}
			})
		})
	}
}

func TestWhoHasWaitedLongestIsServedFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := twoSites(whole)
		f := newThrifty(w.network(), mebi, time.Now)
		first := has(t, f.get(t.Context(), "http://first.test/", mebi))
		large := f.get(t.Context(), "http://other.test/", mebi)
		synctest.Wait()
		small := f.get(t.Context(), "http://first.test/", 1000) // which would have room
		w.hasNot(t, small, firstAt)
		first.Drop()
		got := has(t, large)
		has(t, small)
		if got, want := w.dials(), []string{firstAt, otherAt, firstAt}; !slices.Equal(got, want) {
			t.Errorf("dialled %v, want %v", got, want)
		}
		got.Drop()
	})
}

func TestABodyLargerThanAllThereIsRunsAlone(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 3*mebi)
	w := newWorld()
	w.site(t, "large.test", publicV4, "80", answer(http.StatusOK, body, "Content-Length", strconv.Itoa(len(body))))
	f := newThrifty(w.network(), mebi, time.Now)
	got, err := f.Fetch(t.Context(), "http://large.test/", rules(), 4*mebi)
	if err != nil || len(got.Body) != len(body) {
		t.Fatalf("got %d bytes, %v", len(got.Body), err)
	}
	if got := f.reserved(t); got != mebi {
		t.Errorf("%d bytes are reserved, want all %d", got, mebi)
	}
	got.Drop()
	if got := f.reserved(t); got != 0 {
		t.Errorf("%d bytes are reserved for nothing", got)
	}
}

func TestWhateverHappensMemoryIsGivenBack(t *testing.T) {
	t.Parallel()
	now := time.Now
	cases := map[string]func(*world) (string, func() time.Time){
		"forbidden":   func(*world) (string, func() time.Time) { return "http://10.0.0.1/", now },
		"not a URL":   func(*world) (string, func() time.Time) { return "::", now },
		"no name":     func(*world) (string, func() time.Time) { return "http://nowhere.test/", now },
		"no answer":   func(w *world) (string, func() time.Time) { w.dial = hangUp(""); return picture, now },
		"not there":   func(w *world) (string, func() time.Time) { w.dial = status("404 Gone"); return picture, now },
		"too large":   func(w *world) (string, func() time.Time) { w.dial = status("200 OK"); return picture, now },
		"short":       func(w *world) (string, func() time.Time) { w.dial = hangUp(whole[:40]); return picture, now },
		"slow":        func(w *world) (string, func() time.Time) { w.dial = script(whole[:40]); return picture, now },
		"headers off": func(w *world) (string, func() time.Time) { w.dial = script(""); return picture, now },
		"panic":       func(w *world) (string, func() time.Time) { w.dial = status("503 No"); return picture, panics(2) },
	}
	for name, prepare := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.names["pictures.test"] = []string{publicV4}
				url, now := prepare(w)
				f := newThrifty(w.network(), mebi, now)
				func() {
					defer func() {
						if recover() != nil != (name == "panic") {
							t.Error("a panic, or none")
						}
					}()
					if _, err := f.Fetch(t.Context(), url, rules(), mebi); err == nil {
						t.Error("it was fetched")
					}
				}()
				if got := f.reserved(t); got != 0 {
					t.Errorf("%d bytes are reserved for nothing", got)
				}
			})
		})
	}
}

// status answers every connection with that status and more than mebi bytes announced.
func status(text string) func(string) (net.Conn, error) {
	return script("HTTP/1.1 " + text + "\r\nContent-Length: 1048577\r\nRetry-After: 7\r\n\r\n")
}

// panics is a clock that panics when it is read more than that many times, after the reservation.
func panics(after int) func() time.Time {
	reads := 0
	return func() time.Time {
		if reads++; reads > after+1 {
			panic("the clock")
		}
		return time.Now()
	}
}

func TestWhoGivesUpWaitingHasDialledNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := twoSites(whole)
		f := newThrifty(w.network(), mebi, time.Now)
		first := has(t, f.get(t.Context(), "http://first.test/", mebi))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got := <-f.get(ctx, "http://other.test/", mebi)
		if got.err != context.DeadlineExceeded || got.Body != nil { //nolint:errorlint // exactly as it is
			t.Errorf("got %q, %v, want context.DeadlineExceeded as it is", got.Body, got.err)
		}
		if got, want := w.dials(), []string{firstAt}; !slices.Equal(got, want) {
			t.Errorf("dialled %v, want %v", got, want)
		}
		first.Drop()
		has(t, f.get(t.Context(), "http://other.test/", mebi)) // the one that gave up is in nobody's way
	})
}

func TestManyDownloadsTogetherStayWithinTheirMemory(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 5000, 100_000, 300_000, 700_000}
	w := newWorld()
	w.site(t, "many.test", publicV4, "80", http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		size, _ := strconv.Atoi(req.URL.Query().Get("size"))
		if req.URL.Query().Has("chunked") {
			_ = http.NewResponseController(rw).Flush()
		} else {
			rw.Header().Set("Content-Length", strconv.Itoa(size))
		}
		_, _ = rw.Write(make([]byte, size))
	}))
	f := newThrifty(w.network(), 2*mebi, time.Now)
	var mu sync.Mutex
	var held, most int
	hold := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		held += n
		most = max(most, held)
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
			got.Drop()
		})
	}
	all.Wait()
	if most > 2*mebi || most < 700_000 {
		t.Errorf("bodies have taken %d bytes together, of %d", most, 2*mebi)
	}
	if got := f.reserved(t); got != 0 {
		t.Errorf("%d bytes are reserved for nothing", got)
	}
}

func TestABufferIsNoLargerThanWhatMayCome(t *testing.T) {
	t.Parallel()
	const size, most = 2*mebi + 1, 2*mebi + 1000
	body := strings.Repeat("x", size)
	plain := answer(http.StatusOK, body, "Content-Length", strconv.Itoa(size))
	cases := map[string]struct {
		handler http.Handler
		most    int
	}{
		"announced":  {plain, size + 1},
		"in chunks":  {answer(http.StatusOK, body), most + 1},
		"compressed": {answer(http.StatusOK, zipped(body), "Content-Encoding", "gzip"), most + 1},
	}
	for name, c := range cases {
		f := newThrifty(served(t, c.handler).network(), 25*mebi, time.Now)
		got, err := f.Fetch(t.Context(), picture, rules(), most)
		if err != nil || len(got.Body) != size || cap(got.Body) > c.most {
			t.Errorf("%s: %d bytes in a buffer of %d, %v, want %d in %d", name, len(got.Body), cap(got.Body), err, size, c.most)
		}
	}
}

func TestABodyKeepsAsMuchAsItsBufferHas(t *testing.T) {
	t.Parallel()
	cases := map[string]http.Handler{
		"announced": answer(http.StatusOK, "picture", "Content-Length", "7"),
		"in chunks": http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(rw).Flush()
			_, _ = rw.Write([]byte("picture"))
		}),
		"compressed": answer(http.StatusOK, zipped("picture"), "Content-Encoding", "gzip"),
	}
	for name, handler := range cases {
		f := newThrifty(served(t, handler).network(), 25*mebi, time.Now)
		got, err := f.Fetch(t.Context(), picture, rules(), 6*mebi)
		if reserved := f.reserved(t); err != nil || reserved != int64(cap(got.Body)) || reserved > 70_000 {
			t.Errorf("%s: %d bytes are reserved for a buffer of %d, %v", name, reserved, cap(got.Body), err)
		}
	}
}

func TestMemoryFollowsFromThePicturesInWork(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		set      int64
		pictures int
		want     int64
	}{{0, 4, 100 * mebi}, {0, 0, 25 * mebi}, {0, 1000, 512 * mebi}, {64 * mebi, 4, 64 * mebi}} {
		if got := (fetch.Config{MaxInFlight: c.set}).For(c.pictures).MaxInFlight; got != c.want {
			t.Errorf("%d for %d pictures: got %d, want %d", c.set, c.pictures, got, c.want)
		}
	}
	if got := int64(pipeline.Default().Spec.Limits.MaxBytes); got != 25*mebi {
		t.Errorf("the default pipeline takes %d bytes, want what each picture in work has", got)
	}
}
