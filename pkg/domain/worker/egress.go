package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

const (
	minRoundInterval = time.Second      // between the beginnings of two rounds of probes
	firstProbes      = 3                // hosts that a round probes before it probes all others
	seedInterval     = time.Minute      // between two queries for recent sources
	seedRetry        = 10 * time.Second // after a query that failed
)

// Egress tells an outage of the way to the sources from the failure of one source. After a failed connection it probes
// hosts from which downloads succeeded recently. There is an outage if none of them responds and those that do not belong to
// at least MinUsers users, so the dead hosts of one user never look like an outage. A source that responds in the meantime
// proves that there is none.
//
// A process that knows hosts of too few users, because it has just started, takes the sources of images that became ready
// lately from the database. If there are too few as well, it cannot tell, and a failed connection is the source's fault.
//
// The methods are safe for concurrent use.
type Egress struct {
	cfg     EgressConfig
	prober  Prober
	sources RecentSources
	rules   func() pipeline.Fetch
	now     func() time.Time
	rounds  *prometheus.CounterVec
	log     *zap.Logger

	mu    sync.Mutex
	known knownHosts
	proof time.Time    // when a host last responded
	last  *egressRound // the current one, or the last one that ended
	query *seedQuery   // the current one, or the last one that ended
}

// seedQuery is one query for recent sources.
type seedQuery struct {
	done  chan struct{}
	again time.Time // after done: when the next query may begin
}

// egressRound is one round of probes.
type egressRound struct {
	began time.Time
	done  chan struct{}
	err   error // after done: the outage, nil, or an error of the round itself
}

// NewEgress returns an Egress that knows no hosts, and registers its metrics with reg. rules returns the rules in force for
// downloads.
func NewEgress(cfg EgressConfig, prober Prober, sources RecentSources, rules func() pipeline.Fetch, now func() time.Time,
	reg prometheus.Registerer, log *zap.Logger,
) *Egress {
	e := &Egress{
		cfg: cfg, prober: prober, sources: sources, rules: rules, now: now, log: log,
		known: knownHosts{memory: cfg.Memory, hosts: map[string]knownHost{}},
		rounds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_worker_egress_rounds_total",
			Help: "Rounds of probes of recently good hosts, by result: reachable, outage or unknown (too few users).",
		}, []string{"result"}),
	}
	reg.MustRegister(e.rounds, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "vitrine_worker_egress_known_users",
		Help: "Users with a recently good host, which egress is judged by.",
	}, func() float64 {
		_, users := e.recent()
		return float64(users)
	}))
	return e
}

// succeeded records a download.
func (e *Egress) succeeded(source string, user catalog.UserID) {
	e.responded()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known.add(source, user, e.now())
}

// responded records that a host has responded, with a source or an error.
func (e *Egress) responded() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.proof = e.now()
	e.known.thaw(e.proof)
}

func (e *Egress) recent() (origins []string, users int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known.recent(e.now())
}

// outage returns the outage that explains a connection that has just failed, an EgressUnavailable or ResolverUnavailable,
// or nil if the source is at fault. It waits for a round of probes that begins now or later, or until another host responds,
// at most until ctx ends.
func (e *Egress) outage(ctx context.Context) *media.Failure {
	failed := e.now()
	if e.cfg.MinUsers == 0 || !e.seed(ctx) {
		return nil
	}
	for ctx.Err() == nil {
		round, started, wait := e.join(failed)
		switch {
		case started:
			e.run(ctx, round)
		case round == nil && wait == 0:
			return nil // a host has responded since
		case round == nil:
			backoff.Sleep(ctx, wait)
			continue
		}
		select {
		case <-round.done:
		case <-ctx.Done():
			return nil
		}
		if f := media.FailureOf(round.err); f != nil || round.err == nil && !round.began.Before(failed) {
			return f
		}
	}
	return nil
}

// join returns a running round, one that began after the failure, or a new one that the caller has to run. round is nil if
// a host has responded since the failure, and if a new round has to wait.
func (e *Egress) join(failed time.Time) (round *egressRound, started bool, wait time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	if e.proof.After(failed) {
		return nil, false, 0
	}
	if last := e.last; last != nil {
		select {
		case <-last.done:
			if !last.began.Before(failed) && !errors.Is(last.err, context.Canceled) {
				return last, false, 0
			}
			if wait = minRoundInterval - now.Sub(last.began); wait > 0 {
				return nil, false, wait
			}
		default:
			return last, false, 0
		}
	}
	e.last = &egressRound{began: now, done: make(chan struct{})}
	return e.last, true, 0
}

// run probes a few hosts and, if none responds, all others. It ends with ctx, and then has no result.
func (e *Egress) run(ctx context.Context, round *egressRound) {
	defer close(round.done)
	origins, _ := e.recent()
	few := min(firstProbes, len(origins))
	silent, reached := e.probe(ctx, origins[:few])
	if !reached {
		var more []error
		more, reached = e.probe(ctx, origins[few:])
		silent = append(silent, more...)
	}
	round.err = e.judge(ctx, silent, reached, round.began)
}

// unreachable is the failure of a probe.
type unreachable struct {
	origin string
	*media.Failure
}

func (u unreachable) Unwrap() error { return u.Failure }

// probe probes hosts at the same time. It returns the failures that can be those of an outage, or reached if a host has
// responded.
func (e *Egress) probe(ctx context.Context, origins []string) (silent []error, reached bool) {
	rules := e.rules()
	rules.ConnectTimeout = min(rules.ConnectTimeout, pipeline.Duration(e.cfg.ProbeTimeout))
	errs := make([]error, len(origins))
	var probes sync.WaitGroup
	for i, at := range origins {
		probes.Go(func() { errs[i] = e.prober.Reach(ctx, at, rules) })
	}
	probes.Wait()
	for i, err := range errs {
		f := media.FailureOf(err)
		switch {
		case err == nil:
			return nil, true
		case f != nil && (connectionCodes[f.Code] || f.Code == media.ResolverUnavailable):
			silent = append(silent, unreachable{origins[i], f})
		}
	}
	return silent, false
}

// judge returns the result of a round.
func (e *Egress) judge(ctx context.Context, silent []error, reached bool, began time.Time) error {
	if reached {
		e.rounds.WithLabelValues("reachable").Inc()
		e.responded()
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("probe: %w", context.Canceled) // also after a deadline: the round has no result
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var all, connections []string
	for _, err := range silent {
		var u unreachable
		if errors.As(err, &u) {
			all = append(all, u.origin)
			if u.Code != media.ResolverUnavailable {
				connections = append(connections, u.origin)
			}
		}
	}
	switch {
	case e.known.users(all) < e.cfg.MinUsers:
		e.rounds.WithLabelValues("unknown").Inc()
		return nil
	case e.known.users(connections) >= e.cfg.MinUsers:
		e.known.freeze(began)
		e.rounds.WithLabelValues("outage").Inc()
		return media.Fail(media.EgressUnavailable, "this installation reaches no source at the moment", silent[0])
	default:
		e.known.freeze(began)
		e.rounds.WithLabelValues("outage").Inc()
		return media.Fail(media.ResolverUnavailable, "the resolver of this installation does not answer", silent[0])
	}
}

// seed reports whether hosts of enough users are known. If not, it adds those of recent images. Callers share a query, and
// none begins within seedInterval of the last one, or within seedRetry if that failed. seed waits at most until ctx ends.
func (e *Egress) seed(ctx context.Context) bool {
	for ctx.Err() == nil {
		if _, users := e.recent(); users >= e.cfg.MinUsers {
			return true
		}
		query, started := e.joinQuery()
		switch {
		case query == nil: // the last one may have ended since
			_, users := e.recent()
			return users >= e.cfg.MinUsers
		case started:
			e.load(ctx, query)
		}
		select {
		case <-query.done:
		case <-ctx.Done():
		}
	}
	return false
}

// joinQuery returns a running query, or a new one that the caller has to run, or nil if none may begin yet.
func (e *Egress) joinQuery() (query *seedQuery, started bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if last := e.query; last != nil {
		select {
		case <-last.done:
			if e.now().Before(last.again) {
				return nil, false
			}
		default:
			return last, false
		}
	}
	e.query = &seedQuery{done: make(chan struct{})}
	return e.query, true
}

// load runs a query. If ctx ends it, the next one may begin at once.
func (e *Egress) load(ctx context.Context, query *seedQuery) {
	defer close(query.done)
	found, err := e.sources.RecentSources(ctx, e.cfg.Memory, maxKnownHosts)
	if err != nil {
		if ctx.Err() == nil {
			query.again = e.now().Add(seedRetry)
			e.log.Warn("no recent sources found: a failed connection counts as the source's fault", zap.Error(err))
		}
		return
	}
	now := e.now()
	query.again = now.Add(seedInterval)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range found {
		e.known.add(s.URL, s.UserID, now)
	}
}

// Check is the probe of the egress breaker. It returns nil if a recently good host responds, or if too few are known.
func (e *Egress) Check(ctx context.Context) error {
	origins, users := e.recent()
	if users < e.cfg.MinUsers || len(origins) == 0 {
		return nil
	}
	silent, reached := e.probe(ctx, origins[:min(maxChecked, len(origins))])
	if reached {
		e.responded()
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known.freeze(e.now()) // a download that ended after the outage was found has thawed them
	return errors.Join(append(silent, errNoResponse)...)
}

// errNoResponse means that no recently good host has responded.
var errNoResponse = errors.New("no recently good host responds")

// maxChecked is how many hosts the breaker's probe connects to.
const maxChecked = 8
