package worker_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// world is a worker with an egress breaker, on a network whose hosts can be down. Each image has a user and a source.
type world struct {
	*fixture
	t      *testing.T
	intake *dependencies
	reg    *prometheus.Registry

	state  sync.Mutex
	all    media.Code            // how every host fails; "": none does
	down   map[string]media.Code // how a host fails
	probed []string
	recent []catalog.RecentSource
	err    error         // of RecentSources
	asked  int           // calls of RecentSources
	hang   time.Duration // of RecentSources
}

func egressConfig() worker.EgressConfig {
	return worker.EgressConfig{MinUsers: 3, Memory: time.Hour, ProbeTimeout: 3 * time.Second}
}

// inWorld runs a test in fake time with a running worker.
func inWorld(t *testing.T, cfg worker.EgressConfig, do func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t:       t,
			fixture: newFixture(t), reg: prometheus.NewRegistry(), down: map[string]media.Code{},
			intake: &dependencies{start: time.Now()},
		}
		w.fetch = func(_ context.Context, source string) (worker.Download, error) {
			return worker.Download{Body: []byte("source")}, w.failureOf(source)
		}
		egress := worker.NewEgress(cfg, w, w, func() pipeline.Fetch { return w.pipe.Spec.Fetch }, time.Now, w.reg, zap.NewNop())
		breakers := worker.NewBreakers(breakerConfig(), w.reg, zap.NewNop(),
			worker.Probe{Dependency: worker.DependencyEgress, Check: egress.Check, WhileOpen: true},
			worker.Probe{Dependency: worker.DependencyResolver, Check: func(context.Context) error {
				return w.failureOf("http://control.test")
			}, WhileOpen: true})
		w.deps.Egress = egress
		w.useBreakers(breakers)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- breakers.Run(ctx, w.intake) }()
		synctest.Wait()
		do(w)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func hostOf(source string) string {
	u, err := url.Parse(source)
	if err != nil {
		panic(err)
	}
	return u.Host
}

// failureOf returns the failure of a connection to the source's host, or nil.
func (w *world) failureOf(source string) error {
	w.state.Lock()
	defer w.state.Unlock()
	code := w.down[hostOf(source)]
	if w.all != "" {
		code = w.all
	}
	if code == "" {
		return nil
	}
	return media.Fail(code, "down", nil)
}

// setAll sets how every host fails.
func (w *world) setAll(code media.Code) {
	w.state.Lock()
	defer w.state.Unlock()
	w.all = code
}

func (w *world) Reach(_ context.Context, source string, rules pipeline.Fetch) error {
	w.state.Lock()
	w.probed = append(w.probed, hostOf(source))
	w.state.Unlock()
	if rules.ConnectTimeout.D() > 3*time.Second {
		return errors.New("the probe is not limited")
	}
	return w.failureOf(source)
}

func (w *world) RecentSources(ctx context.Context, within time.Duration, limit int) ([]catalog.RecentSource, error) {
	if !backoff.Sleep(ctx, w.hang) {
		return nil, ctx.Err()
	}
	w.state.Lock()
	defer w.state.Unlock()
	w.asked++
	if within != time.Hour || limit != 64 {
		return nil, fmt.Errorf("asked for %d within %s", limit, within)
	}
	return w.recent, w.err
}

// image handles an image of the user at http://host and returns the outcome: the method of the catalogue and the code.
func (w *world) image(user catalog.UserID, host string) string {
	w.t.Helper()
	w.begin = func(_ context.Context, r catalog.Job) (catalog.Attempt, error) {
		return catalog.Attempt{Job: r, UserID: user, FencingToken: 1, SourceURL: "http://" + host + "/a.jpg", Number: 1}, nil
	}
	w.mu.Lock()
	w.calls, w.failure = nil, nil
	w.mu.Unlock()
	err := w.Handle(w.t.Context(), event.New("job-1", "1", event.ImageRequested{
		ProductID: 1, ImageID: 2, SourceURL: "http://" + host + "/a.jpg", PipelineHash: w.pipe.Hash(),
	}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	outcome := w.calls[len(w.calls)-1]
	if w.failure != nil {
		outcome += " " + string(w.failure.Code)
	}
	return outcome
}

// want handles an image and requires its outcome.
func (w *world) want(user catalog.UserID, host, outcome string) {
	w.t.Helper()
	if got := w.image(user, host); got != outcome {
		w.t.Errorf("image of user %d at %s: got %q, want %q", user, host, got, outcome)
	}
}

// good handles an image of each user from 1 to users, at a host of its own.
func (w *world) good(users int) {
	w.t.Helper()
	for user := 1; user <= users; user++ {
		w.want(catalog.UserID(user), fmt.Sprintf("good%d.test", user), "finish")
	}
}

func (w *world) probes() int {
	w.state.Lock()
	defer w.state.Unlock()
	return len(w.probed)
}

// open returns the dependencies of the open breakers.
func (w *world) open() string {
	w.t.Helper()
	synctest.Wait()
	return openBreakers(w.t, w.reg)
}

// The outcomes of an image whose connection fails.
const (
	blamed   = "retry connect_failed"
	deferral = "defer egress_unavailable"
)

func TestEgress(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*world){
		"outage_spends_no_attempt_and_stops_intake":      testEgressOutage,
		"one_users_dead_hosts_never_open":                testEgressDeadHosts,
		"one_users_recently_good_hosts_never_open":       testEgressOneUsersGoodHosts,
		"one_users_hosts_displace_no_others":             testEgressManyHosts,
		"one_reachable_host_keeps_it_closed":             testEgressOneReachableHost,
		"users_of_one_host_count_as_one":                 testEgressSharedHost,
		"user_at_the_hosts_of_others_takes_none_over":    testEgressTakeover,
		"hosts_that_no_longer_exist_do_not_count":        testEgressAbsentHosts,
		"two_users_are_too_few":                          testEgressTwoUsers,
		"old_hosts_do_not_count":                         testEgressOldHosts,
		"hosts_are_not_forgotten_during_an_outage":       testEgressLongOutage,
		"lasts_at_most_max_pause_without_a_new_failure":  testEgressMaxPause,
		"new_process_takes_recent_sources":               testEgressNewProcess,
		"no_recent_sources":                              testEgressNoRecentSources,
		"callers_share_a_query_that_hangs":               testEgressHangingQuery,
		"end_of_one_caller_ends_no_wait_of_others":       testEgressQueryOfEndedCaller,
		"concurrent_failures_share_a_round":              testEgressSharedRound,
		"rounds_begin_at_most_once_a_second":             testEgressRoundInterval,
		"response_of_another_host_needs_no_round":        testEgressResponseIsProof,
		"probes_without_a_resolver_open_its_breaker":     testEgressResolver,
		"resolver_outage_opens_its_breaker":              testEgressResolverOutage,
		"answers_that_are_not_connections_are_not_asked": testEgressAnswers,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, egressConfig(), test)
		})
	}
}

func testEgressOutage(w *world) {
	w.good(3)
	advance(10 * time.Second)
	for _, code := range []media.Code{media.ConnectFailed, media.Timeout, media.TLSFailed, media.Incomplete} {
		w.setAll(code)
		w.want(1, "good1.test", deferral)
		if got := w.open(); got != "egress" {
			w.t.Errorf("%s: open: %q", code, got)
		}
		before := w.probes()
		advance(500 * time.Millisecond)
		w.want(4, "other.test", deferral) // while it is open
		if got := w.probes(); got != before {
			w.t.Errorf("%d probes for a failure while the breaker is open", got-before)
		}
		w.setAll("")
		advance(1500 * time.Millisecond)
		if got := w.open(); got != "" {
			w.t.Errorf("%s: open after a successful probe: %q", code, got)
		}
		w.want(1, "good1.test", "finish")
		advance(2 * time.Second)
	}
	w.intake.wantCalls(w.t, "pause 10s", "resume 12s", "pause 14s", "resume 16s",
		"pause 18s", "resume 20s", "pause 22s", "resume 24s")
}

func testEgressDeadHosts(w *world) {
	w.good(3)
	for i := range 1000 {
		host := fmt.Sprintf("dead%d.test", i)
		w.down[host] = media.ConnectFailed
		w.want(9, host, blamed)
	}
	if got := w.open(); got != "" {
		w.t.Errorf("open: %q", got)
	}
	w.intake.wantCalls(w.t)
}

func testEgressOneUsersGoodHosts(w *world) {
	w.good(2)
	for i := range 100 {
		w.want(3, fmt.Sprintf("many%d.test", i), "finish")
	}
	for i := range 100 {
		w.down[fmt.Sprintf("many%d.test", i)] = media.Timeout
	}
	for i := range 100 {
		w.want(3, fmt.Sprintf("many%d.test", i), "retry timeout")
	}
	w.intake.wantCalls(w.t)
}

func testEgressManyHosts(w *world) {
	w.good(2)
	for i := range 100 {
		advance(time.Second)
		w.want(3, fmt.Sprintf("many%d.test", i), "finish")
	}
	w.setAll(media.ConnectFailed)
	w.want(3, "many99.test", deferral)
}

func testEgressOneReachableHost(w *world) {
	w.good(60)
	for user := 2; user <= 60; user++ {
		w.down[fmt.Sprintf("good%d.test", user)] = media.ConnectFailed
	}
	advance(time.Minute)
	for user := catalog.UserID(2); user <= 60; user++ {
		w.want(user, fmt.Sprintf("good%d.test", user), blamed)
	}
	w.intake.wantCalls(w.t)
}

func testEgressSharedHost(w *world) {
	for user := catalog.UserID(1); user <= 9; user++ {
		w.want(user, "cdn.test", "finish")
	}
	w.want(2, "other.test", "finish")
	advance(time.Second)
	w.setAll(media.ConnectFailed)
	w.want(3, "cdn.test", blamed)
	w.intake.wantCalls(w.t)
}

func testEgressTakeover(w *world) {
	w.good(3)
	for user := 1; user <= 3; user++ {
		w.want(4, fmt.Sprintf("good%d.test", user), "finish")
	}
	advance(time.Second)
	w.setAll(media.ConnectFailed)
	w.want(1, "good1.test", deferral)
}

func testEgressAbsentHosts(w *world) {
	w.good(3)
	w.want(1, "second1.test", "finish")
	w.want(2, "second2.test", "finish")
	advance(time.Second)
	for _, host := range []string{"good1.test", "second1.test", "good2.test", "second2.test"} {
		w.down[host] = media.ConnectFailed
	}
	w.down["good3.test"] = media.DNSFailed
	w.want(1, "good1.test", blamed)
}

func testEgressTwoUsers(w *world) {
	w.good(2)
	w.want(2, "second.test", "finish")
	w.setAll(media.ConnectFailed)
	w.want(1, "good1.test", blamed)
	if got := w.probes(); got != 0 {
		w.t.Errorf("%d probes, but their result cannot matter", got)
	}
	w.intake.wantCalls(w.t)
}

func testEgressOldHosts(w *world) {
	w.good(3)
	advance(time.Hour - time.Second)
	w.want(1, "good1.test", "finish")
	w.want(2, "good2.test", "finish")
	advance(2 * time.Second) // good3 is too old now
	w.setAll(media.ConnectFailed)
	w.want(1, "good1.test", blamed)
	w.intake.wantCalls(w.t)
}

func testEgressLongOutage(w *world) {
	w.good(3)
	w.setAll(media.Timeout)
	for range 5 {
		w.want(1, "good1.test", deferral)
		advance(time.Hour)
	}
	w.setAll("")
	w.want(1, "good1.test", "finish")
	advance(time.Minute)
	w.setAll(media.Timeout)
	w.want(2, "good2.test", deferral) // good2 and good3 have aged by a minute only
}

func testEgressMaxPause(w *world) {
	w.good(3)
	w.setAll(media.ConnectFailed)
	w.want(1, "good1.test", deferral)
	advance(30 * time.Second)
	w.intake.wantCalls(w.t, "pause 0s", "resume 10s") // breakerConfig().MaxPause
	w.want(1, "good1.test", deferral)
	synctest.Wait()
	w.intake.wantCalls(w.t, "pause 0s", "resume 10s", "pause 30s")
}

func testEgressNewProcess(w *world) {
	w.setAll(media.ConnectFailed)
	for user := range 3 {
		w.recent = append(w.recent, catalog.RecentSource{
			UserID: catalog.UserID(user + 1), URL: fmt.Sprintf("https://shop%d.test/%%20/a.jpg?x=1", user+1),
		})
	}
	w.err = errors.New("down")
	w.want(7, "x.test", blamed)
	w.err = nil
	w.want(7, "x.test", blamed)
	advance(10 * time.Second) // then an error is forgotten
	w.want(7, "x.test", deferral)
	if w.asked != 2 {
		w.t.Errorf("recent sources were asked for %d times, want twice", w.asked)
	}
	slices.Sort(w.probed)
	if want := []string{"shop1.test", "shop2.test", "shop3.test"}; !slices.Equal(w.probed, want) {
		w.t.Errorf("probed %v, want %v", w.probed, want)
	}
}

func testEgressNoRecentSources(w *world) {
	w.setAll(media.ConnectFailed)
	for range 10 {
		w.want(7, "x.test", blamed)
	}
	advance(time.Minute)
	w.want(7, "x.test", blamed)
	if w.asked != 2 {
		w.t.Errorf("recent sources were asked for %d times, want once a minute", w.asked)
	}
}

func testEgressHangingQuery(w *world) {
	w.setAll(media.ConnectFailed)
	w.hang, w.err = 5*time.Second, errors.New("timeout")
	start := time.Now()
	w.failAtOnce(20)
	if got := time.Since(start); got != w.hang || w.asked != 1 {
		w.t.Errorf("20 failures ended after %s and %d queries, want one of %s", got, w.asked, w.hang)
	}
}

func testEgressQueryOfEndedCaller(w *world) {
	w.setAll(media.ConnectFailed)
	w.hang = 5 * time.Second
	for user := range 3 {
		w.recent = append(w.recent, catalog.RecentSource{
			UserID: catalog.UserID(user + 1), URL: fmt.Sprintf("https://shop%d.test/a.jpg", user+1),
		})
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	var first sync.WaitGroup
	first.Go(func() { _ = w.Handle(ctx, w.message()) })
	synctest.Wait() // its query hangs
	time.AfterFunc(time.Second, cancel)
	w.want(7, "x.test", deferral)
	first.Wait()
	if w.asked != 1 {
		w.t.Errorf("%d queries have ended, want one", w.asked)
	}
}

// failAtOnce handles n images of dead hosts at the same time.
func (w *world) failAtOnce(n int) {
	w.t.Helper()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := w.Handle(w.t.Context(), event.New("job-1", "1", event.ImageRequested{
				ProductID: 1, ImageID: int64(i + 1), SourceURL: fmt.Sprintf("http://dead%d.test", i), PipelineHash: w.pipe.Hash(),
			})); err != nil {
				w.t.Error(err)
			}
		})
	}
	all.Wait()
}

func testEgressSharedRound(w *world) {
	w.good(3)
	advance(time.Second)
	w.begin = func(_ context.Context, r catalog.Job) (catalog.Attempt, error) {
		return catalog.Attempt{Job: r, UserID: 9, FencingToken: 1, SourceURL: "http://dead.test"}, nil
	}
	w.down["dead.test"] = media.ConnectFailed
	w.failAtOnce(20)
	if got := w.probes(); got != 3 {
		w.t.Errorf("%d probes for 20 failures, want 3", got)
	}
}

func testEgressRoundInterval(w *world) {
	w.good(3)
	advance(time.Second)
	w.down["dead.test"] = media.ConnectFailed
	start := time.Now()
	for range 10 {
		advance(time.Millisecond)
		w.want(9, "dead.test", blamed)
	}
	if got := time.Since(start).Round(time.Second); got != 9*time.Second || w.probes() != 30 {
		w.t.Errorf("%d probes within %s, want three a second", w.probes(), got)
	}
}

func testEgressResponseIsProof(w *world) {
	w.good(3)
	advance(time.Second)
	w.down["dead.test"], w.down["absent.test"] = media.ConnectFailed, media.HTTPStatus
	w.want(9, "dead.test", blamed)
	before := w.probes()
	w.begin = func(_ context.Context, r catalog.Job) (catalog.Attempt, error) {
		host := "dead.test"
		if r.ImageID == 2 {
			host = "absent.test"
		}
		return catalog.Attempt{Job: r, UserID: 9, FencingToken: 1, SourceURL: "http://" + host}, nil
	}
	advance(time.Millisecond)
	var failing sync.WaitGroup
	failing.Go(func() { w.failAtOnce(1) })
	synctest.Wait() // it waits until the next round may begin
	advance(time.Millisecond)
	if err := w.Handle(w.t.Context(), w.message()); err != nil { // image 2
		w.t.Error(err)
	}
	failing.Wait()
	if got := w.probes(); got != before {
		w.t.Errorf("%d probes although another host has responded", got-before)
	}
}

func testEgressResolver(w *world) {
	w.good(3)
	w.setAll(media.ResolverUnavailable)
	w.down["dead.test"] = media.ConnectFailed
	w.fetch = func(context.Context, string) (worker.Download, error) {
		return worker.Download{}, media.Fail(media.Timeout, "the download took longer than allowed", nil)
	}
	w.want(9, "dead.test", "defer resolver_unavailable")
	if got := w.open(); got != "resolver" {
		w.t.Errorf("open: %q", got)
	}
}

func testEgressResolverOutage(w *world) {
	advance(5 * time.Second)
	w.setAll(media.ResolverUnavailable)
	w.want(1, "x.test", "defer resolver_unavailable")
	if got := w.open(); got != "resolver" {
		w.t.Errorf("open: %q", got)
	}
	w.setAll("")
	advance(2 * time.Second)
	w.want(1, "x.test", "finish")
	w.intake.wantCalls(w.t, "pause 5s", "resume 6s")
}

func testEgressAnswers(w *world) {
	w.good(3)
	for code, outcome := range map[media.Code]string{
		media.HTTPStatus: "fail", media.SourceUnavailable: "retry", media.TooLarge: "fail", media.DNSFailed: "retry",
		media.URLForbidden: "fail", media.TooManyRedirects: "fail",
	} {
		w.down["x.test"] = code
		w.want(1, "x.test", outcome+" "+string(code))
	}
	if got := w.probes(); got != 0 {
		w.t.Errorf("%d probes", got)
	}
}
