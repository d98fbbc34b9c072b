package postgres_test

import (
	"context"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/servers"
)

func TestListLimits(t *testing.T) {
	t.Parallel()
	t.Run("other_calls_have_connections", testListsOtherCalls)
	t.Run("wait_for_a_connection_is_bounded", testListsWait)
	t.Run("slow_statement_ends", testListsTimeout)
	t.Run("caller_that_leaves_frees_its_place", testListsCancel)
}

// heldLists is a store whose lists wait for a lock until the test ends. Its other pool has one connection.
type heldLists struct {
	*postgres.Store
	*testing.T
	db  *postgres.DB
	reg *prometheus.Registry
}

func holdLists(t *testing.T, limits postgres.ListConfig) heldLists {
	t.Helper()
	dsn := migrated(t)
	conn := connect(t, dsn)
	run(t, conn, "BEGIN")
	run(t, conn, "LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
	cfg, reg := config(dsn), prometheus.NewRegistry()
	cfg.MaxOpenConns, cfg.List = 1, limits
	db := open(t, cfg, reg)
	return heldLists{postgres.NewStore(db), t, db, reg}
}

func (h heldLists) list(ctx context.Context) error {
	_, err := h.List(ctx, catalog.Query{UserID: 1, Sort: catalog.NewestFirst, Limit: 20})
	return err
}

// wantRefused checks an error, its code, and the metric of its reason.
func (h heldLists) wantRefused(err error, code, reason string) {
	h.Helper()
	if !fault.Is(err, fault.Unavailable) || fault.CodeOf(err) != code {
		h.Errorf("got %v, want unavailable with the code %s", err, code)
	}
	if n, _ := findMetric(h.T, h.reg, "vitrine_postgres_lists_refused_total", "reason="+reason); n == 0 {
		h.Errorf("no refusal with the reason %s was counted", reason)
	}
}

// While all connections of lists are in use and no more lists may wait, other calls and health checks get answers.
func testListsOtherCalls(t *testing.T) {
	t.Parallel()
	h := holdLists(t, postgres.ListConfig{MaxOpenConns: 2, MaxWaiting: 3, Wait: time.Hour, StatementTimeout: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	refused := make(chan error)
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if err := h.list(ctx); fault.CodeOf(err) == "lists_busy" {
				refused <- err
			}
		})
	}
	h.wantRefused(<-refused, "lists_busy", "busy") // of six, two run and three wait
	for range 20 {
		if err := h.db.Ping(t.Context()); err != nil {
			t.Fatalf("ping: %v", err)
		}
		if _, _, err := h.Installation(t.Context()); err != nil {
			t.Fatalf("another call: %v", err)
		}
	}
	if waits, found := findMetric(t, h.reg, "vitrine_postgres_connection_waits_total", "pool=main"); waits != 0 || !found {
		t.Errorf("got %g waits of other calls, want none", waits)
	}
	cancel()
	all.Wait()
}

func testListsWait(t *testing.T) {
	t.Parallel()
	h := holdLists(t, postgres.ListConfig{
		MaxOpenConns: 1, MaxWaiting: 1, Wait: time.Millisecond, StatementTimeout: time.Hour,
	})
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	for range 2 {
		go func() { errs <- h.list(ctx) }()
	}
	h.wantRefused(<-errs, "lists_busy", "busy") // the other one holds the connection
	cancel()
	if err := <-errs; err == nil {
		t.Error("the list that held the connection got a page from a locked table")
	}
}

func testListsTimeout(t *testing.T) {
	t.Parallel()
	h := holdLists(t, postgres.ListConfig{MaxOpenConns: 1, Wait: time.Hour, StatementTimeout: 50 * time.Millisecond})
	for range 2 { // the connection is free again
		h.wantRefused(h.list(t.Context()), "list_timeout", "timeout")
	}
}

func testListsCancel(t *testing.T) {
	t.Parallel()
	h := holdLists(t, postgres.ListConfig{
		MaxOpenConns: 1, MaxWaiting: 1, Wait: time.Hour, StatementTimeout: 50 * time.Millisecond,
	})
	left, cancel := context.WithCancel(t.Context())
	cancel()
	for range 5 {
		if err := h.list(left); err == nil || fault.CodeOf(err) == "lists_busy" {
			t.Errorf("got %v, want the end of the context", err)
		}
	}
	h.wantRefused(h.list(t.Context()), "list_timeout", "timeout")
}

// stocked fills the tables: user 1 has 20000 products, user 2 has 20. All have the same name, so that the trigram index is
// small: for a name without trigrams it returns every product, which the planner takes for a few rows at a low cost.
func stocked(t *testing.T, dsn string) (*pgx.Conn, *postgres.Store) {
	t.Helper()
	if err := postgres.Migrate(t.Context(), postgres.Config{DSN: dsn}, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, dsn)
	run(t, conn, "INSERT INTO users (name, email, email_key) SELECT 'u', g, g FROM generate_series(1, 2) g")
	run(t, conn, `INSERT INTO products (user_id, product_name, product_description, product_price)
		SELECT CASE WHEN g <= 20 THEN 2 ELSE 1 END, 'Чашка ab!', repeat('d', 300), 1 FROM generate_series(1, 20020) g`)
	run(t, conn, "VACUUM ANALYZE products")
	cfg := config(dsn)
	cfg.List.MaxCost = 500
	return conn, postgres.NewStore(open(t, cfg, prometheus.NewRegistry()))
}

// A search that reads many products is refused, on both kinds of database. Under the character type C there are no trigrams
// outside ASCII.
func TestListTooBroad(t *testing.T) {
	t.Parallel()
	for _, locale := range []string{"C", "C.UTF-8"} {
		t.Run("under_"+locale, func(t *testing.T) {
			t.Parallel()
			testListTooBroad(t, servers.PostgresLocale(t, locale), locale != "C")
		})
	}
}

// isTooBroad reports whether err says that the name is too broad.
func isTooBroad(err error) bool {
	f := fault.From(err)
	return f != nil && f.Kind == fault.Invalid && f.Fields[0].Path == "name" && f.Fields[0].Code == "too_broad"
}

func testListTooBroad(t *testing.T, dsn string, cyrillic bool) {
	t.Helper()
	_, store := stocked(t, dsn)
	for _, row := range []struct {
		query catalog.Query
		ok    bool
	}{
		{catalog.Query{UserID: 1}, true},
		{catalog.Query{UserID: 2, Name: "ab!"}, true},
		{catalog.Query{UserID: 1, Name: "ab!"}, false},
		{catalog.Query{UserID: 1, Name: "!!!"}, false},
		{catalog.Query{Name: "!!!"}, false},
		{catalog.Query{UserID: 1, Name: "absent"}, true},
		{catalog.Query{Name: "absent"}, true},
		{catalog.Query{Name: "чашка"}, cyrillic},
		{catalog.Query{Name: "отсутствует"}, cyrillic},
		{catalog.Query{UserID: 1, Name: "отсутствует"}, cyrillic},
		{catalog.Query{UserID: 2, Name: "ашка"}, true},
		{catalog.Query{Name: "\U000323AF\U000323AF\U000323AF"}, false}, // letters since Unicode 15
	} {
		q := row.query
		q.Sort, q.Limit = catalog.NewestFirst, 20
		_, err := store.List(t.Context(), q)
		if row.ok && err != nil {
			t.Errorf("user %d, name %q: got %v", q.UserID, q.Name, err)
		}
		if !row.ok && !isTooBroad(err) {
			t.Errorf("user %d, name %q: got %v, want too_broad of name", q.UserID, q.Name, err)
		}
	}
}

// What [catalog.Searchable] takes for a letter or digit, the trigrams of the database have, and so does the regular
// expression by which the adapter asks it. Characters of recent versions of Unicode may be missing in the database.
func TestTrigramLetters(t *testing.T) {
	t.Parallel()
	for _, locale := range []string{"C", "C.UTF-8"} {
		conn := connect(t, servers.PostgresLocale(t, locale))
		rows, err := conn.Query(t.Context(), `SELECT c, chr(c) ~ '[[:alnum:]]', show_trgm(chr(c)) <> '{}'
			FROM generate_series(1, 55295) c`)
		if err != nil {
			t.Fatal(err)
		}
		missing := 0
		for rows.Next() {
			var char int32
			var matched, trigrams bool
			if err := rows.Scan(&char, &matched, &trigrams); err != nil {
				t.Fatal(err)
			}
			if matched != trigrams {
				t.Errorf("%s: %U: the expression matches: %t; it has trigrams: %t", locale, char, matched, trigrams)
			}
			letter := catalog.Searchable(string([]rune{char, char, char}))
			if ascii := char <= unicode.MaxASCII; letter && !trigrams && (ascii || locale != "C") {
				missing++
			}
			if trigrams && !letter {
				t.Errorf("%s: %U has trigrams and is no letter", locale, char)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		if missing > 100 { // 11 with Unicode 15 in the C library
			t.Errorf("%s: %d letters have no trigrams", locale, missing)
		}
	}
}
