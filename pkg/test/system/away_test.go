package system_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vitrine.io/pkg/platform/telemetry"
	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/port"
	"vitrine.io/pkg/test/servers"
)

// unreadyAfter is how long Postgres has to fail for one instance in these tests, where others wait half a minute.
const unreadyAfter = 3 * time.Second

// healthEnv shortens the times of health checks, and those of calls, so that writes are answered soon.
func healthEnv(dsn string) map[string]string {
	return map[string]string{
		"VITRINE_POSTGRES_DSN": dsn, "VITRINE_HEALTH_INTERVAL": "200ms", "VITRINE_HEALTH_UNREADY_AFTER": unreadyAfter.String(),
		"VITRINE_POSTGRES_TIMEOUT": "2s", "VITRINE_POSTGRES_CONNECT_TIMEOUT": "1s", "VITRINE_HTTP_MAX_IN_FLIGHT": "16",
		// On a busy machine Redis is slow, and a read that it does not answer in time needs Postgres.
		"VITRINE_REDIS_TIMEOUT": "5s", "VITRINE_REDIS_IO_TIMEOUT": "5s", "VITRINE_REDIS_DIAL_TIMEOUT": "5s",
	}
}

// health returns the verbose readiness of a program.
func (r *running) health() (status int, report telemetry.Report) {
	r.t.Helper()
	a, err := client.New("", client.Options{Timeout: timeout, FreshConns: true}).Do(
		r.t.Context(), http.MethodGet, r.admin+"/readyz?verbose", nil)
	if err == nil {
		err = json.Unmarshal(a.Body, &report)
	}
	if err != nil {
		r.t.Fatalf("readyz of %s: %v", r.Name, err)
	}
	return a.Status, report
}

// outage returns how long Postgres is away at least. VITRINE_TEST_OUTAGE makes it longer.
func outage(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("VITRINE_TEST_OUTAGE")
	if text == "" {
		return 2 * unreadyAfter
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("VITRINE_TEST_OUTAGE: %v", err)
	}
	return max(d, 2*unreadyAfter)
}

// awaitFailure waits until Postgres has failed for d.
func (r *running) awaitFailure(d time.Duration) {
	r.t.Helper()
	eventually(r.t, "Postgres has failed for "+d.String(), func() error {
		if _, report := r.health(); report.Checks["postgres"].FailedSeconds < d.Seconds() {
			return fmt.Errorf("%+v", report.Checks["postgres"])
		}
		return nil
	})
}

// awayLoad is the load while Postgres goes away: reads of a cached and of a deleted product, which all have to succeed, and
// writes.
type awayLoad struct {
	t        *testing.T
	ctx      context.Context // not the test's: it lasts until end
	wg       sync.WaitGroup
	stop     chan struct{}
	ended    sync.Once
	reported sync.Once
	reads    atomic.Int64
	probes   atomic.Int64
	refusals atomic.Int64

	mu       sync.Mutex
	accepted []int64
}

// read reads a path of one instance again and again, and wants the first response each time.
func (l *awayLoad) read(api *client.Client, path string) {
	first, err := api.Do(l.ctx, http.MethodGet, path, nil)
	if err != nil {
		l.t.Fatalf("%s: %v", path, err)
	}
	same := func(a client.Response) bool { // but for the request's id
		return a.Status == first.Status && (a.Status != http.StatusOK || bytes.Equal(a.Body, first.Body))
	}
	l.repeat(func() {
		a, err := api.Do(l.ctx, http.MethodGet, path, nil)
		l.reads.Add(1)
		if err != nil || !same(a) {
			l.errorf("GET %s: %v, %d %s", path, err, a.Status, a.Body)
		}
	})
}

// write creates products. A refusal must be a 503 that says when to retry.
func (l *awayLoad) write(api *client.Client, user int64, writer int) {
	n := 0
	l.repeat(func() {
		n++
		body := fmt.Sprintf(`{"user_id":%d,"product_name":"w%d-%d","product_price":"1"}`, user, writer, n)
		a, err := api.Do(l.ctx, http.MethodPost, "/products", body,
			"Idempotency-Key", fmt.Sprintf("k%d-%d", writer, n))
		switch {
		case err != nil:
			l.errorf("POST: %v", err)
		case a.Status == http.StatusCreated:
			p, err := a.Product()
			if err != nil {
				l.errorf("%v", err)
			}
			l.mu.Lock()
			l.accepted = append(l.accepted, p.ID)
			l.mu.Unlock()
		case a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "":
			l.errorf("POST: got %d, Retry-After %q: %s", a.Status, a.Header.Get("Retry-After"), a.Body)
		default:
			l.refusals.Add(1)
		}
	})
}

// probe checks that a program is ready all the time.
func (l *awayLoad) probe(r *running) {
	l.repeat(func() {
		l.probes.Add(1)
		if err := checkStatus(r.admin+"/readyz", http.StatusOK); err != nil {
			l.errorf("%s is not ready: %v", r.Name, err)
		}
	})
}

// repeat calls do with short pauses until the load ends.
func (l *awayLoad) repeat(do func()) {
	l.wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-tick.C:
				do()
			}
		}
	})
}

// end stops the load and waits for its requests.
func (l *awayLoad) end() {
	l.ended.Do(func() { close(l.stop) })
	l.wg.Wait()
}

// errorf fails the test. The first wrong response is enough.
func (l *awayLoad) errorf(format string, args ...any) {
	l.t.Helper()
	l.reported.Do(func() { l.t.Errorf(format, args...) })
}

// progress waits for more reads and writes: refusals of writes, or accepted ones.
func (l *awayLoad) progress(what string, refused bool) {
	l.t.Helper()
	writes := func() int64 {
		if refused {
			return l.refusals.Load()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		return int64(len(l.accepted))
	}
	const many = 20
	readsBefore, writesBefore := l.reads.Load(), writes()
	eventually(l.t, what, func() error {
		if r, w := l.reads.Load()-readsBefore, writes()-writesBefore; r < many || w < many {
			return fmt.Errorf("%d reads, %d writes", r, w)
		}
		return nil
	})
}

// awaySystem is a system with two instances of the API and a Postgres of its own.
type awaySystem struct {
	*system
	db     *servers.Server
	second string     // URL of the second API
	pods   []*running // both APIs and the worker
	user   int64
	kept   client.Product // ready
	gone   client.Product // deleted
}

func newAwaySystem(t *testing.T) *awaySystem {
	t.Helper()
	db := servers.PostgresServer(t)
	t.Cleanup(func() { db.Thaw(t) })
	s, addr := newSystem(t, healthEnv(db.DSN)), port.Addr(t)
	a := &awaySystem{system: s, db: db, second: "http://" + addr}
	a.pods = []*running{s.start("worker"), s.start("api"), s.start("api", "VITRINE_HTTP_ADDR="+addr)}
	a.user = s.user()
	a.kept, a.gone = s.post(a.user, s.sources.URL+photoPath), s.post(a.user)
	if p := s.awaitSettled(a.kept.ID); p.ImageStatus != "ready" {
		t.Fatalf("got %+v", p)
	}
	if r := s.call(http.MethodDelete, fmt.Sprintf("/products/%d", a.gone.ID), ""); r.Status != http.StatusNoContent {
		t.Fatalf("delete: %d", r.Status)
	}
	return a
}

// startLoad reads and writes through both APIs, and asks all programs whether they are ready, until the test ends.
func (a *awaySystem) startLoad() *awayLoad {
	load := &awayLoad{t: a.t, ctx: context.WithoutCancel(a.t.Context()), stop: make(chan struct{})}
	a.t.Cleanup(load.end)
	for _, r := range a.pods {
		load.probe(r)
	}
	for pod, url := range []string{a.url, a.second} {
		api := client.New(url, client.Options{Timeout: timeout})
		a.t.Cleanup(api.Close)
		load.read(api, fmt.Sprintf("/products/%d", a.kept.ID))
		load.read(api, fmt.Sprintf("/products/%d", a.gone.ID))
		for writer := range 24 { // more than MAX_IN_FLIGHT: they take every slot that they may
			load.write(api, a.user, 100*pod+writer)
		}
	}
	return load
}

// TestPostgresAway stops Postgres, or freezes it, while two instances of the API are in use.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		newAwaySystem(t).goAway((*servers.Server).Stop, (*servers.Server).Start)
	})
	t.Run("frozen", func(t *testing.T) {
		t.Parallel()
		newAwaySystem(t).goAway((*servers.Server).Freeze, (*servers.Server).Thaw)
	})
}

// goAway makes Postgres go away and come back, under load.
func (a *awaySystem) goAway(away, back func(*servers.Server, testing.TB)) {
	t, load := a.t, a.startLoad()
	load.progress("reads and writes succeed", false)
	away(a.db, t)
	load.progress("reads succeed and writes are refused", true)
	const step = timeout / 3 // a wait has to be shorter than its timeout
	for failed, all := time.Duration(0), outage(t); failed < all; {
		failed = min(failed+step, all)
		for _, r := range a.pods {
			r.awaitFailure(failed)
		}
	}
	load.progress("reads still succeed", true)
	back(a.db, t)
	load.progress("writes succeed again", false)
	load.end()
	t.Logf("%d reads, %d probes, %d writes accepted, %d refused",
		load.reads.Load(), load.probes.Load(), len(load.accepted), load.refusals.Load())
	for _, id := range load.accepted {
		if r := a.call(http.MethodGet, fmt.Sprintf("/products/%d", id), ""); r.Status != http.StatusOK {
			t.Errorf("accepted product %d: %d %s", id, r.Status, r.Body)
		}
	}
	if p := a.awaitSettled(a.post(a.user, a.sources.URL+drawingPath).ID); p.ImageStatus != "ready" {
		t.Errorf("after the outage: %+v", p)
	}
}

// TestPostgresCutOff cuts one of two instances off from Postgres.
func TestPostgresCutOff(t *testing.T) {
	t.Parallel()
	dsn := servers.Postgres(t)
	cut, through := throughCutter(t, dsn)
	s := newSystem(t, healthEnv(dsn))
	alone := s.start("api", "VITRINE_POSTGRES_DSN="+through)
	other := s.start("api", "VITRINE_HTTP_ADDR="+port.Addr(t))
	p := s.post(s.user())
	path := fmt.Sprintf("/products/%d", p.ID)
	s.call(http.MethodGet, path, "") // fills the cache
	cut.setCut(true)
	stays := func() {
		if status, report := other.health(); status != http.StatusOK {
			t.Errorf("the other instance: %d %+v", status, report)
		}
	}
	eventually(t, "the instance that is cut off is not ready", func() error {
		stays()
		if a := s.call(http.MethodGet, path, ""); a.Status != http.StatusOK {
			t.Errorf("a cached read: %d %s", a.Status, a.Body)
		}
		status, report := alone.health()
		failed := report.Checks["postgres"].FailedSeconds
		switch {
		case status == http.StatusOK:
			return errors.New("it is ready")
		case failed < unreadyAfter.Seconds():
			t.Fatalf("not ready after %v s: %+v", failed, report)
		}
		return nil
	})
	if a := s.call(http.MethodGet, "/readyz", ""); a.Status != http.StatusServiceUnavailable || a.Code() != "not_ready" {
		t.Errorf("readyz of the API's port: %d %s", a.Status, a.Body)
	}
	if err := checkStatus(alone.admin+"/healthz", http.StatusOK); err != nil {
		t.Errorf("liveness: %v", err)
	}
	if up := s.metric(alone, "vitrine_ready"); up != 0 {
		t.Errorf("vitrine_ready is %v", up)
	}
	cut.setCut(false)
	alone.await()
	stays()
}
