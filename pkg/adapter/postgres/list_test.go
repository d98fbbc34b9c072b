package postgres_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/shopspring/decimal"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
)

// plan returns the plan of a list. The server plans it with its values, as it does for List.
func plan(t *testing.T, conn *pgx.Conn, q catalog.Query) string {
	t.Helper()
	text, args := postgres.ListQuery(q)
	rows, err := conn.Query(t.Context(), "EXPLAIN "+text, append([]any{pgx.QueryExecModeExec}, args...)...)
	if err != nil {
		t.Fatalf("explain: %v", err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("explain: %v", err)
	}
	return strings.Join(lines, "\n")
}

func TestListStatement(t *testing.T) {
	t.Parallel()
	t.Run("plans_use_indexes", testListPlans)
	t.Run("one_statement_reads_a_page", testListStatements)
}

func testListPlans(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	run(t, conn, "INSERT INTO users (name, email, email_key) SELECT 'u', g || '@example.com', g FROM generate_series(1, 500) g")
	run(t, conn, `INSERT INTO products (user_id, product_name, product_description, product_price)
		SELECT 1 + g % 500, 'Common thing ' || md5(g::text), 'd', (g * 7919 % 100000) / 100.0 FROM generate_series(1, 50000) g`)
	run(t, conn, "UPDATE products SET product_name = 'Rarissimum' WHERE id % 20000 = 7")
	run(t, conn, "VACUUM ANALYZE products")
	price := func(text string) *decimal.Decimal {
		d := decimal.RequireFromString(text)
		return &d
	}
	after := &catalog.Cursor{ID: 25000, Price: *price("500.00")}
	for _, row := range []struct {
		name  string
		query catalog.Query
		index string
	}{
		{"a user's newest", catalog.Query{UserID: 7, Sort: catalog.NewestFirst}, "products_user "},
		{"a user's next page", catalog.Query{UserID: 7, Sort: catalog.NewestFirst, After: after}, "products_user "},
		{"a user's cheapest", catalog.Query{UserID: 7, Sort: catalog.CheapestFirst}, "products_user_price"},
		{"a user's dearest", catalog.Query{UserID: 7, Sort: catalog.MostExpensiveFirst, After: after}, "products_user_price"},
		{
			"a user's between prices",
			catalog.Query{UserID: 7, Sort: catalog.CheapestFirst, MinPrice: price("1"), MaxPrice: price("2")}, "products_user_price",
		},
		{"a rare name", catalog.Query{Name: "rarissi", Sort: catalog.NewestFirst}, "products_name"},
		{"a rare name by price", catalog.Query{Name: "rarissi", Sort: catalog.MostExpensiveFirst}, "products_name"},
		{"an absent name", catalog.Query{Name: "absent", Sort: catalog.NewestFirst}, "products_name"},
		{"a common name", catalog.Query{Name: "common", Sort: catalog.NewestFirst}, "products_pkey"},
		{"a common name by price", catalog.Query{Name: "common", Sort: catalog.CheapestFirst}, "products_price"},
	} {
		row.query.Limit = 20
		if got := plan(t, conn, row.query); !strings.Contains(got, row.index) || strings.Contains(got, "Seq Scan on products") {
			t.Errorf("%s: want %s and no scan of the table, got\n%s", row.name, row.index, got)
		}
	}
}

func testListStatements(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	core, logs := observer.New(zap.WarnLevel)
	cfg := config(dsn)
	cfg.SlowQuery = time.Nanosecond // so that every statement is in the log
	db, err := postgres.Open(cfg, zap.New(core), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer func() { _ = db.Close() }()
	conn := connect(t, dsn)
	run(t, conn, "INSERT INTO users (name, email, email_key) VALUES ('u', 'u@example.com', 'u')")
	run(t, conn, `INSERT INTO products (user_id, product_name, product_description, product_price)
		SELECT 1, 'p', 'd', 1 FROM generate_series(1, 100) g`)
	run(t, conn, `INSERT INTO images (product_id, position, source_url, status, job_state)
		SELECT id, g, 'u', 'ready', 'idle' FROM products, generate_series(0, 3) g`)
	page, err := postgres.NewStore(db).List(t.Context(), catalog.Query{UserID: 1, Sort: catalog.NewestFirst, Limit: 100})
	if err != nil || len(page.Products) != 100 {
		t.Fatalf("got %d products and %v, want 100", len(page.Products), err)
	}
	if got := logs.FilterMessage("slow statement").Len(); got != 1 {
		t.Errorf("got %d statements, want 1", got)
	}
	for _, p := range page.Products {
		if len(p.Images) != 4 {
			t.Errorf("product %d: got %d images, want 4", p.ID, len(p.Images))
		}
	}
}
