package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/port"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	t.Run("defaults_are_valid", testConfigDefaults)
	t.Run("wrong_variables_are_reported", testConfigWrong)
	t.Run("broken_dsn_is_reported_without_password", testConfigBrokenDSN)
	t.Run("unreadable_certificate_is_reported", testConfigCertificate)
}

func TestLog(t *testing.T) {
	t.Parallel()
	t.Run("slow_statement_has_no_parameters", testLogSlow)
	t.Run("gorm_messages_go_to_zap", testLogGorm)
}

func testConfigDefaults(t *testing.T) {
	t.Parallel()
	cfg, err := env.ParseAsWithOptions[postgres.Config](env.Options{
		Environment: map[string]string{"DSN": "postgres://u:p@localhost/vitrine"},
	})
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	if wrong := append(cfg.Validate(), cfg.List.Validate()...); wrong != nil {
		t.Errorf("got %v, want none", wrong)
	}
}

func testConfigWrong(t *testing.T) {
	t.Parallel()
	var names []string
	for _, f := range (postgres.Config{SlowQuery: -1}).Validate() {
		names = append(names, f.Path)
	}
	got := strings.Join(names, " ")
	want := "DSN MAX_OPEN_CONNS EDIT_QUEUE OUTBOX_MAX_TRIES CONN_MAX_LIFETIME CONN_MAX_IDLE_TIME CONNECT_TIMEOUT TIMEOUT " +
		"STATEMENT_TIMEOUT LOCK_TIMEOUT SLOW_QUERY"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	names = nil
	for _, f := range (postgres.ListConfig{MaxWaiting: -1, MaxCost: -1}).Validate() {
		names = append(names, f.Path)
	}
	want = "LIST_MAX_OPEN_CONNS LIST_MAX_WAITING LIST_WAIT LIST_STATEMENT_TIMEOUT LIST_MAX_COST"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("lists: got %s, want %s", got, want)
	}
	wrong := postgres.Config{DSN: "postgres://u:secret@host:notaport/db"}.Validate()
	if text := fmt.Sprint(wrong); wrong[0].Code != "malformed" || strings.Contains(text, "secret") {
		t.Errorf("got %s, want a malformed DSN and no password", text)
	}
}

func testConfigBrokenDSN(t *testing.T) {
	t.Parallel()
	_, err := postgres.Open(config("postgres://u:secret@host:notaport/db"), zap.NewNop(), prometheus.NewRegistry())
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want an error without the password", err)
	}
}

// Every call without a database is fault.Unavailable.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	dsn := "postgres://vitrine@" + port.Addr(t) + "/vitrine?sslmode=disable"
	reg := prometheus.NewRegistry()
	db := open(t, config(dsn), reg)
	store, outbox := postgres.NewStore(db), outboxOf(t, db)
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"ping":            func() error { return db.Ping(ctx) },
		"insert_user":     func() error { _, err := store.InsertUser(ctx, catalog.User{}); return err },
		"user":            func() error { _, err := store.User(ctx, 1); return err },
		"product":         func() error { _, err := store.Product(ctx, 1); return err },
		"list":            func() error { _, err := store.List(ctx, catalog.Query{}); return err },
		"insert":          func() error { _, err := store.Insert(ctx, catalog.Product{}, nil); return err },
		"edit":            func() error { _, err := store.Edit(ctx, 1, nil); return err },
		"save":            func() error { return store.SavePipeline(ctx, "hash", nil) },
		"pipeline":        func() error { _, err := store.Pipeline(ctx, "hash"); return err },
		"installation":    func() error { _, _, err := store.Installation(ctx); return err },
		"start_due":       func() error { _, err := store.StartDue(ctx, 1, 0); return err },
		"second_pass":     func() error { _, err := store.ClaimSecondPass(ctx, 1, 0); return err },
		"remove":          func() error { return store.Remove(ctx, []string{"a/"}) },
		"overdue":         func() error { _, _, err := store.OverdueJobs(ctx, maintenance.ReleasedJob{}, 1, 0); return err },
		"purge":           func() error { _, err := store.PurgeDeleted(ctx, 1, 0); return err },
		"create_key_days": func() error { _, err := store.RotateKeys(ctx); return err },
		"select":          func() error { _, _, err := store.SelectImages(ctx, catalog.Filter{}, 0, 1); return err },
		"insert_once": func() error {
			_, _, _, err := store.InsertOnce(ctx, catalog.IdempotencyKey{}, catalog.Product{}, nil, nil)
			return err
		},
		"insert_user_once": func() error {
			_, _, err := store.InsertUserOnce(ctx, catalog.IdempotencyKey{}, catalog.User{}, nil)
			return err
		},
		"edit_once": func() error {
			_, _, _, err := store.EditOnce(ctx, catalog.IdempotencyKey{}, 1, nil, nil)
			return err
		},
		"saved_response": func() error { _, _, err := store.SavedResponse(ctx, catalog.IdempotencyKey{}); return err },
		"save_response":  func() error { _, err := store.SaveResponse(ctx, catalog.IdempotencyKey{}, nil); return err },
		"publish_batch":  func() error { _, err := outbox.PublishBatch(ctx, 1, nil); return err },
		"depth":          func() error { _, err := outbox.Depth(ctx); return err },
		"migrate":        func() error { return postgres.Migrate(ctx, postgres.Config{DSN: dsn}, zap.NewNop()) },
		"check":          func() error { return postgres.CheckSchema(ctx, postgres.Config{DSN: dsn}) },
		"status":         func() error { _, err := postgres.MigrationStatus(ctx, postgres.Config{DSN: dsn}); return err },
		"locale":         func() error { return postgres.CheckLocale(ctx, postgres.Config{DSN: dsn}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := call(); !fault.Is(err, fault.Unavailable) || errors.Is(err, catalog.ErrOutcomeUnknown) {
				t.Errorf("got %v, want unavailable", err)
			}
		})
	}
}

func TestInstallation(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	db := open(t, config(dsn), prometheus.NewRegistry())
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	id, epoch, err := postgres.NewStore(db).Installation(t.Context())
	if err != nil || len(id) != 36 || epoch != 0 {
		t.Errorf("got %q, epoch %d and %v, want a UUID and 0", id, epoch, err)
	}
	conn := connect(t, dsn)
	if _, err := conn.Exec(t.Context(), "INSERT INTO installation VALUES (gen_random_uuid(), 1)"); err == nil {
		t.Error("the database accepted a second installation")
	}
	run(t, conn, "DELETE FROM installation")
	if _, _, err := postgres.NewStore(db).Installation(t.Context()); !fault.Is(err, fault.Internal) {
		t.Errorf("got %v, want an internal error without the row", err)
	}
}

func TestApplicationName(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	cfg := config(dsn)
	cfg.ApplicationName = "name " + dsn[len(dsn)-20:]
	db := open(t, cfg, prometheus.NewRegistry())
	if err := db.Ping(t.Context()); err != nil {
		t.Fatalf("ping: %v", err)
	}
	if _, err := outboxOf(t, db).Depth(t.Context()); err != nil {
		t.Fatalf("depth: %v", err)
	}
	store := postgres.NewStore(db)
	if _, _, err := store.Installation(t.Context()); err != nil {
		t.Fatalf("installation: %v", err)
	}
	if _, err := store.List(t.Context(), catalog.Query{UserID: 1, Limit: 1}); err != nil {
		t.Fatalf("list: %v", err)
	}
	if err := healthOf(t, db).Check(t.Context()); err != nil {
		t.Fatalf("check health: %v", err)
	}
	conn := connect(t, dsn)
	got := scalar[int64](t, conn, `SELECT count(*) FROM pg_stat_activity
		WHERE application_name IN ($1, $1 || '-outbox', $1 || '-lists', $1 || '-health')`, cfg.ApplicationName)
	if got != 4 {
		t.Errorf("got %d connections, want one of each pool under its name", got)
	}
}

// findMetric returns the value of a metric for labels given as name=value. The value of a histogram is its count.
func findMetric(t *testing.T, reg *prometheus.Registry, name string, labels ...string) (value float64, found bool) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatalf("gather: %v", err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			have := map[string]bool{}
			for _, l := range m.GetLabel() {
				have[l.GetName()+"="+l.GetValue()] = true
			}
			all := true
			for _, l := range labels {
				all = all && have[l]
			}
			if all {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount()), true
			}
		}
	}
	return 0, false
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	db := open(t, config(migrated(t)), reg)
	outbox := outboxOf(t, db)
	store := postgres.NewStore(db)
	if _, err := store.Product(t.Context(), 404); err == nil {
		t.Error("found a product")
	}
	if _, err := outbox.Depth(t.Context()); err != nil {
		t.Errorf("depth: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.User(ended, 1); err == nil {
		t.Error("found a user")
	}
	const calls = "vitrine_postgres_call_duration_seconds"
	for _, row := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{calls, []string{"pool=main", "method=product", "outcome=not_found"}, 1},
		{calls, []string{"pool=main", "method=user", "outcome=canceled"}, 1},
		{calls, []string{"pool=outbox", "method=depth", "outcome=ok"}, 1},
		{"vitrine_postgres_connections_limit", []string{"pool=main"}, 6},
		{"vitrine_postgres_connections_limit", []string{"pool=outbox"}, 2},
		{"vitrine_postgres_connections_open", []string{"pool=outbox"}, 1},
		{"vitrine_postgres_connections_in_use", []string{"pool=main"}, 0},
		{"vitrine_postgres_connection_waits_total", []string{"pool=main"}, 0},
		{"vitrine_postgres_connection_wait_seconds_total", []string{"pool=main"}, 0},
	} {
		if got, found := findMetric(t, reg, row.name, row.labels...); !found || got != row.want {
			t.Errorf("%s%v: got %v (found %t), want %v", row.name, row.labels, got, found, row.want)
		}
	}
	if got := postgres.Outcome(catalog.ErrOutcomeUnknown); got != "unknown" {
		t.Errorf("got %s, want unknown", got)
	}
}

func testLogSlow(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.DebugLevel)
	cfg := config(migrated(t))
	cfg.SlowQuery = time.Nanosecond
	db, err := postgres.Open(cfg, zap.New(core), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer func() { _ = db.Close() }()
	ada := catalog.User{Name: "Ada", Email: "ada@example.com"}
	if _, err := postgres.NewStore(db).InsertUser(t.Context(), ada); err != nil {
		t.Fatalf("insert user: %v", err)
	}
	slow := logs.FilterMessage("slow statement").All()
	if len(slow) != 1 {
		t.Fatalf("got %d messages, want 1", len(slow))
	}
	text := fmt.Sprint(slow[0].ContextMap())
	if !strings.Contains(text, "INSERT INTO users (name, email, email_key) VALUES ($1") || strings.Contains(text, "ada@") {
		t.Errorf("got %s, want the statement without its parameters", text)
	}
}

func testLogGorm(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.DebugLevel)
	log := postgres.GormLogger(zap.New(core), 0).LogMode(0)
	log.Info(t.Context(), "a %d", 1)
	log.Warn(t.Context(), "b %d", 2)
	log.Error(t.Context(), "c %d", 3)
	log.Trace(t.Context(), time.Now().Add(-time.Hour), func() (string, int64) { return "SELECT", 1 }, nil)
	var got []string
	for _, entry := range logs.All() {
		got = append(got, entry.Level.String()+" "+entry.Message)
	}
	if got, want := strings.Join(got, ", "), "debug gorm: a 1, warn gorm: b 2, error gorm: c 3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestJSONColumn(t *testing.T) {
	t.Parallel()
	for name, src := range map[string]any{"text": `["a"]`, "bytes": []byte(`["a"]`)} {
		c := postgres.JSONColumn{V: []string{"x", "y"}}
		if err := c.Scan(src); err != nil || len(c.V) != 1 || c.V[0] != "a" {
			t.Errorf("%s: got %v and %v, want [a]", name, c.V, err)
		}
	}
	c := postgres.JSONColumn{V: []string{"x"}}
	if err := c.Scan(nil); err != nil || c.V != nil {
		t.Errorf("got %v and %v, want nothing for NULL", c.V, err)
	}
	for _, src := range []any{"[", 7} {
		if err := c.Scan(src); err == nil {
			t.Errorf("%v was read as JSON", src)
		}
	}
	if got, err := (postgres.JSONColumn{V: []string{"a"}}).Value(); err != nil || got != `["a"]` {
		t.Errorf("got %v and %v, want the text", got, err)
	}
	if _, err := (postgres.AnyJSONColumn{V: func() {}}).Value(); err == nil {
		t.Error("a function was written as JSON")
	}
}
