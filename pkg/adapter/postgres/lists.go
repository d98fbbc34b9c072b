package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"gorm.io/gorm"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

// lists runs the statements of lists on a pool of its own, so that lists never hold a connection that another call needs.
// A list that would read too much is refused before it runs, by the planner's estimate; one whose estimate was wrong ends at
// the statement timeout of the pool.
type lists struct {
	db       *DB
	cfg      ListConfig
	admitted chan struct{} // one for each list that runs or waits
	running  chan struct{} // one for each connection
	refused  *prometheus.CounterVec
}

// The values of the label reason: why a list was refused or ended.
const (
	refusedBusy     = "busy"
	refusedTimeout  = "timeout"
	refusedTooBroad = "too_broad"
)

// errListsBusy is the error of a list that got no connection in time.
var errListsBusy = fault.New(fault.Unavailable, "lists_busy",
	"this server is handling as many lists as it may; try again later")

func newLists(cfg Config, db *DB) (*lists, error) {
	cfg.MaxOpenConns = cfg.List.MaxOpenConns
	cfg.StatementTimeout = cfg.List.StatementTimeout
	cfg.ApplicationName += "-lists"
	own, err := open("lists", cfg, db.log, db.reg)
	if err != nil {
		return nil, err
	}
	l := &lists{
		db: own, cfg: cfg.List,
		admitted: make(chan struct{}, cfg.List.MaxOpenConns+cfg.List.MaxWaiting),
		running:  make(chan struct{}, cfg.List.MaxOpenConns),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_postgres_lists_refused_total",
			Help: "Lists without a page: busy (no connection), timeout (of the statement), too_broad (by the planner's estimate).",
		}, []string{"reason"}),
	}
	for _, reason := range []string{refusedBusy, refusedTimeout, refusedTooBroad} {
		l.refused.WithLabelValues(reason)
	}
	db.reg.MustRegister(l.refused)
	return l, nil
}

// run calls fn, which sends the statement of q, when a connection is free. byTrigrams tells fn whether the trigram index can
// find the name. fault.Unavailable with the code lists_busy if no connection gets free in time, or list_timeout if the
// statement takes too long; fault.Invalid if q would read too much.
func (l *lists) run(ctx context.Context, q catalog.Query, fn func(conn *gorm.DB, byTrigrams bool) error) error {
	leave, err := l.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	byTrigrams, err := l.check(ctx, q)
	if err == nil {
		err = l.db.call(ctx, "list", func(conn *gorm.DB) error { return fn(conn, byTrigrams) })
	}
	if stateOf(err) == queryCanceled {
		l.refused.WithLabelValues(refusedTimeout).Inc()
		return fault.Wrap(err, fault.Unavailable, "list_timeout", "the list took too long; ask for less")
	}
	return err
}

// enter waits for a free connection of the pool and returns a function that makes it free again.
func (l *lists) enter(ctx context.Context) (leave func(), err error) {
	select {
	case l.admitted <- struct{}{}:
	default:
		l.refused.WithLabelValues(refusedBusy).Inc()
		return nil, errListsBusy
	}
	timer := time.NewTimer(l.cfg.Wait)
	defer timer.Stop()
	select {
	case l.running <- struct{}{}:
		return func() {
			<-l.running
			<-l.admitted
		}, nil
	case <-timer.C:
		l.refused.WithLabelValues(refusedBusy).Inc()
		err = errListsBusy
	case <-ctx.Done():
		err = translate(ctx.Err())
	}
	<-l.admitted
	return nil, err
}

// check returns fault.Invalid for a search that would read too much, or else whether the trigram index can find the name.
// Lists without a name always use an index and mostly stop early, so they are not checked. A name that the trigram index
// cannot find is only searched among the products of one user, and may have to read all of them: the estimate is then that
// of a list without a limit.
func (l *lists) check(ctx context.Context, q catalog.Query) (byTrigrams bool, err error) {
	if q.Name == "" {
		return false, nil
	}
	if byTrigrams, err = l.searchable(ctx, q.Name); err != nil {
		return false, err
	}
	if !byTrigrams && q.UserID == 0 {
		return false, l.tooBroad("without user_id, name needs at least three letters or digits in a row that the database knows")
	}
	if l.cfg.MaxCost == 0 {
		return byTrigrams, nil
	}
	cost, err := l.estimate(ctx, q, byTrigrams)
	if err == nil && cost > float64(l.cfg.MaxCost) {
		err = l.tooBroad("the search would read too many products: give a longer name, a user_id or closer prices")
	}
	return byTrigrams, err
}

func (l *lists) tooBroad(detail string) error {
	l.refused.WithLabelValues(refusedTooBroad).Inc()
	return fault.InvalidFields([]fault.Field{{Path: "name", Code: "too_broad", Detail: detail}})
}

// searchable reports whether the trigram index can find the name. Which characters are letters depends on the locale of the
// database, which is asked if no three ASCII letters or digits decide it.
func (l *lists) searchable(ctx context.Context, name string) (bool, error) {
	if !catalog.Searchable(name) {
		return false, nil
	}
	if catalog.Searchable(asciiOf(name)) {
		return true, nil
	}
	return find[bool](ctx, l.db, "list_searchable", nil, `SELECT $1::text ~ '[[:alnum:]]{3}'`, name)
}

// asciiOf replaces each character outside ASCII by a space.
func asciiOf(name string) string {
	ascii := []rune(name)
	for i, r := range ascii {
		if r >= utf8.RuneSelf {
			ascii[i] = ' '
		}
	}
	return string(ascii)
}

// estimate returns the planner's cost of reading the products of a list. The images are not part of it: there are few.
func (l *lists) estimate(ctx context.Context, q catalog.Query, byTrigrams bool) (float64, error) {
	var limit *int
	if byTrigrams {
		limit = new(q.Limit + 1)
	}
	text, args := productsQuery(q, byTrigrams, limit)
	plan, err := find[string](ctx, l.db, "list_estimate", nil, "EXPLAIN (FORMAT JSON) "+text, args...)
	if err != nil {
		return 0, err
	}
	var plans []struct {
		Plan struct {
			TotalCost float64 `json:"Total Cost"`
		}
	}
	if err := json.Unmarshal([]byte(plan), &plans); err != nil || len(plans) != 1 {
		return 0, fmt.Errorf("read plan: %w", errors.Join(err, fmt.Errorf("%d plans", len(plans))))
	}
	return plans[0].Plan.TotalCost, nil
}

// stateOf returns the SQLSTATE of an error of the server, or "".
func stateOf(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
