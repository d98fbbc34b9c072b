package postgres_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/shopspring/decimal"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

func TestTranslate(t *testing.T) {
	t.Parallel()
	state := func(code string) error { return fmt.Errorf("run: %w", &pgconn.PgError{Severity: "ERROR", Code: code}) }
	for name, row := range map[string]struct {
		err  error
		want fault.Kind
	}{
		"connection lost":       {state("08006"), fault.Unavailable},
		"wrong password":        {state("28P01"), fault.Unavailable},
		"too many connections":  {state("53300"), fault.Unavailable},
		"disk full":             {state("53100"), fault.Unavailable},
		"shutting down":         {state("57P01"), fault.Unavailable},
		"starting up":           {state("57P03"), fault.Unavailable},
		"statement timeout":     {state("57014"), fault.Unavailable},
		"i/o error":             {state("58030"), fault.Unavailable},
		"became a standby":      {state("25006"), fault.Unavailable},
		"idle in transaction":   {state("25P03"), fault.Unavailable},
		"serialization failure": {state("40001"), fault.Unavailable},
		"deadlock":              {state("40P01"), fault.Unavailable},
		"lock not available":    {state("55P03"), fault.Unavailable},
		"a NUL":                 {state("22021"), fault.Invalid},
		"a NUL in JSON":         {state("22P05"), fault.Invalid},
		"no such table":         {state("42P01"), fault.Internal},
		"check violation":       {state("23514"), fault.Internal},
		"no code at all":        {state(""), fault.Internal},
		"deadline":              {fmt.Errorf("run: %w", context.DeadlineExceeded), fault.Unavailable},
		"refused":               {&net.OpError{Op: "dial", Err: errors.New("refused")}, fault.Unavailable},
		"ended early":           {io.ErrUnexpectedEOF, fault.Unavailable},
		"bad connection":        {driver.ErrBadConn, fault.Unavailable},
		"classified already":    {fault.New(fault.NotFound, "x", "x"), fault.NotFound},
		"unknown error":         {errors.New("x"), fault.Internal},
		"canceled":              {context.Canceled, fault.Internal},
	} {
		got := postgres.Translate(row.err)
		if fault.KindOf(got) != row.want || !errors.Is(got, row.err) {
			t.Errorf("%s: got %v of kind %s, want kind %s", name, got, fault.KindOf(got), row.want)
		}
	}
	if postgres.Translate(nil) != nil {
		t.Error("nil was translated to an error")
	}
	if got := postgres.Translate(context.Canceled); fault.From(got) != nil {
		t.Errorf("got %v, want it unchanged", got)
	}
}

func TestTranslateCommit(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, row := range map[string]struct {
		ctx     context.Context
		err     error
		unknown bool
	}{
		"no error":                     {t.Context(), nil, false},
		"rolled back by the deadline":  {ended, sql.ErrTxDone, false},
		"finished earlier":             {t.Context(), sql.ErrTxDone, false},
		"the server rolled back":       {t.Context(), pgx.ErrTxCommitRollback, false},
		"a constraint at commit":       {t.Context(), &pgconn.PgError{Severity: "ERROR", Code: "23505"}, false},
		"the server ended the session": {t.Context(), &pgconn.PgError{Severity: "FATAL", Code: "57P01"}, true},
		"no answer":                    {t.Context(), io.ErrUnexpectedEOF, true},
		"no answer in time":            {t.Context(), context.DeadlineExceeded, true},
		"canceled during COMMIT":       {t.Context(), context.Canceled, true},
	} {
		got := postgres.TranslateCommit(row.ctx, row.err)
		if errors.Is(got, catalog.ErrOutcomeUnknown) != row.unknown || row.err == nil && got != nil {
			t.Errorf("%s: got %v, want unknown %t", name, got, row.unknown)
		}
		if row.unknown && (!fault.Is(got, fault.Unavailable) || !errors.Is(got, row.err)) {
			t.Errorf("%s: got %v, want unavailable with its cause", name, got)
		}
	}
}

// proxied is a store with a user whose connections go through a proxy that can break them.
type proxied struct {
	*postgres.Store
	proxy *proxy
	dsn   string
	user  catalog.UserID
}

func newProxied(t *testing.T) proxied {
	t.Helper()
	dsn := migrated(t)
	p, through := throughProxy(t, dsn)
	store := postgres.NewStore(open(t, config(through), prometheus.NewRegistry()))
	u, err := store.InsertUser(t.Context(), catalog.User{Name: "Ada", Email: "ada@example.com"})
	if err != nil {
		t.Fatalf("insert user: %v", err)
	}
	return proxied{Store: store, proxy: p, dsn: dsn, user: u.ID}
}

// insert adds a product with one message.
func (s proxied) insert(t *testing.T) (catalog.Product, error) {
	t.Helper()
	p := catalog.Product{UserID: s.user, Name: "Lamp", Price: decimal.New(1, 0), Version: 1, Revision: 1}
	return s.Insert(t.Context(), p, func(p catalog.Product) []catalog.Outgoing {
		changed := event.ProductChanged{ProductID: int64(p.ID), Version: 1}
		m := event.New("0b6f2c1e-0000-4000-8000-000000000001", p.ID.String(), changed)
		return []catalog.Outgoing{{Message: m}}
	})
}

// counts returns how many products and messages there are.
func (s proxied) counts(t *testing.T) (products, messages int64) {
	t.Helper()
	conn := connect(t, s.dsn)
	return scalar[int64](t, conn, "SELECT count(*) FROM products"), scalar[int64](t, conn, "SELECT count(*) FROM outbox")
}

func TestCommit(t *testing.T) {
	t.Parallel()
	t.Run("break_at_commit_is_unknown_outcome", testCommitBreak)
	t.Run("break_before_commit_changes_nothing", testCommitBreakBefore)
	t.Run("error_reply_is_certain_unless_fatal", testCommitErrorReply)
	t.Run("canceled_call_changes_nothing", testCommitCanceled)
	t.Run("call_beyond_timeout_changes_nothing", testCommitTimeout)
}

func testCommitBreak(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		reply   bool
		commits int64
	}{
		{"before_server_receives_it", false, 0},
		{"after_server_replies", true, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newProxied(t)
			s.proxy.breakAt("commit\x00", row.reply)
			_, err := s.insert(t)
			if !errors.Is(err, catalog.ErrOutcomeUnknown) || fault.KindOf(err) != fault.Unavailable {
				t.Errorf("got %v, want %v", err, catalog.ErrOutcomeUnknown)
			}
			if products, messages := s.counts(t); products != row.commits || messages != row.commits {
				t.Errorf("got %d products and %d messages, want %d: nothing may be repeated", products, messages, row.commits)
			}
			if _, err := s.insert(t); err != nil { // the pool has recovered
				t.Errorf("insert after that: %v", err)
			}
		})
	}
}

func testCommitBreakBefore(t *testing.T) {
	t.Parallel()
	for _, reply := range []bool{false, true} {
		s := newProxied(t)
		s.proxy.breakAt("INSERT INTO outbox", reply)
		_, err := s.insert(t)
		if !fault.Is(err, fault.Unavailable) || errors.Is(err, catalog.ErrOutcomeUnknown) {
			t.Errorf("got %v, want unavailable and a known outcome", err)
		}
		if products, messages := s.counts(t); products != 0 || messages != 0 {
			t.Errorf("got %d products and %d messages, want none", products, messages)
		}
	}
}

func testCommitErrorReply(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, body string
		unknown    bool
	}{
		{"error", "RAISE EXCEPTION 'no' USING ERRCODE = '40001'", false},
		{"fatal", "PERFORM pg_terminate_backend(pg_backend_pid())", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newProxied(t)
			conn := connect(t, s.dsn)
			run(t, conn, "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "+row.body+"; RETURN NULL; END $$")
			run(t, conn, `CREATE CONSTRAINT TRIGGER stop AFTER INSERT ON products DEFERRABLE INITIALLY DEFERRED
				FOR EACH ROW EXECUTE FUNCTION stop()`)
			_, err := s.insert(t)
			if !fault.Is(err, fault.Unavailable) || errors.Is(err, catalog.ErrOutcomeUnknown) != row.unknown {
				t.Errorf("got %v, want unavailable and unknown %t", err, row.unknown)
			}
		})
	}
}

func testCommitCanceled(t *testing.T) {
	t.Parallel()
	s := newProxied(t)
	p, err := s.insert(t)
	if err != nil {
		t.Fatalf("insert: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.Edit(ctx, p.ID, func(p *catalog.Product, _ time.Time) (catalog.Change, error) {
		p.Version++
		cancel()
		return catalog.Change{}, nil
	})
	if !errors.Is(err, context.Canceled) || fault.From(err) != nil {
		t.Errorf("got %v, want %v unchanged", err, context.Canceled)
	}
	if got, err := s.Product(t.Context(), p.ID); err != nil || got.Version != 1 {
		t.Errorf("got version %d and %v, want 1", got.Version, err)
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	s := newProxied(t)
	p, err := s.insert(t)
	if err != nil {
		t.Fatalf("insert: %v", err)
	}
	pool := func(change func(*postgres.Config)) *postgres.Store {
		cfg := config(s.dsn)
		change(&cfg)
		return postgres.NewStore(open(t, cfg, prometheus.NewRegistry()))
	}
	never := func(*catalog.Product, time.Time) (catalog.Change, error) {
		t.Error("two edits hold the lock of the product")
		return catalog.Change{}, nil
	}
	holder := pool(func(cfg *postgres.Config) { cfg.MaxOpenConns = 1 })
	waits := map[string]func() error{
		"for a lock": func() error {
			_, err := pool(func(cfg *postgres.Config) { cfg.LockTimeout = 50 * time.Millisecond }).Edit(t.Context(), p.ID, never)
			return err
		},
		"for a statement": func() error {
			_, err := pool(func(cfg *postgres.Config) { cfg.StatementTimeout = 50 * time.Millisecond }).Edit(t.Context(), p.ID, never)
			return err
		},
		"for the server": func() error {
			_, err := pool(func(cfg *postgres.Config) { cfg.Timeout = 50 * time.Millisecond }).Edit(t.Context(), p.ID, never)
			return err
		},
		"for a connection": func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := holder.Product(ctx, p.ID)
			return err
		},
	}
	_, err = holder.Edit(t.Context(), p.ID, func(*catalog.Product, time.Time) (catalog.Change, error) {
		for name, wait := range waits {
			if err := wait(); !fault.Is(err, fault.Unavailable) || errors.Is(err, catalog.ErrOutcomeUnknown) {
				t.Errorf("%s: got %v, want unavailable", name, err)
			}
		}
		return catalog.Change{}, nil
	})
	if err != nil {
		t.Errorf("edit: %v", err)
	}
}

func testCommitTimeout(t *testing.T) {
	t.Parallel()
	s := newProxied(t)
	p, err := s.insert(t)
	if err != nil {
		t.Fatalf("insert: %v", err)
	}
	cfg := config(s.dsn)
	cfg.MaxOpenConns, cfg.Timeout = 1, 200*time.Millisecond
	store := postgres.NewStore(open(t, cfg, prometheus.NewRegistry()))
	_, err = store.Edit(t.Context(), p.ID, func(p *catalog.Product, _ time.Time) (catalog.Change, error) {
		for { // the only connection is free when the edit has lost it
			if _, err := store.Product(t.Context(), p.ID); err == nil {
				break
			}
		}
		p.Version++
		return catalog.Change{}, nil
	})
	if !fault.Is(err, fault.Unavailable) || errors.Is(err, catalog.ErrOutcomeUnknown) {
		t.Errorf("got %v, want unavailable and a known outcome", err)
	}
	if got, err := s.Product(t.Context(), p.ID); err != nil || got.Version != 1 {
		t.Errorf("got version %d and %v, want 1", got.Version, err)
	}
}

// Another program that deletes an image without the product's lock makes the edit fail as a whole.
func TestEditOfDeletedImage(t *testing.T) {
	t.Parallel()
	s := newProxied(t)
	for name, fn := range map[string]func(p *catalog.Product){
		"changed": func(p *catalog.Product) { p.Images[0].FencingToken++ },
		"dropped": func(p *catalog.Product) { p.Images, p.ImageURLs = nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, s.dsn)
			p, err := s.Insert(t.Context(), catalog.Product{
				UserID: s.user, Name: "Lamp", Version: 1, Revision: 1, ImageURLs: []string{"https://example.com/a.jpg"},
				Images: []catalog.Image{{SourceURL: "https://example.com/a.jpg", Status: catalog.Pending, JobState: catalog.Idle}},
			}, func(catalog.Product) []catalog.Outgoing { return nil })
			if err != nil {
				t.Fatalf("insert: %v", err)
			}
			_, err = s.Edit(t.Context(), p.ID, func(p *catalog.Product, _ time.Time) (catalog.Change, error) {
				run(t, conn, fmt.Sprintf("DELETE FROM images WHERE id = %d", p.Images[0].ID))
				p.Version++
				fn(p)
				return catalog.Change{}, nil
			})
			if !fault.Is(err, fault.Internal) {
				t.Errorf("got %v, want an internal error", err)
			}
			if got, err := s.Product(t.Context(), p.ID); err != nil || got.Version != 1 {
				t.Errorf("got version %d and %v, want 1", got.Version, err)
			}
		})
	}
}
