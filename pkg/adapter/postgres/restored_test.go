package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
)

// seed adds a user, products and an image by SQL, and returns the number of products.
func seed(t *testing.T, conn *pgx.Conn) int {
	t.Helper()
	run(t, conn, `INSERT INTO users (name, email, email_key) VALUES ('Ada', 'ada@example.com', 'ada')`)
	run(t, conn, `INSERT INTO products (user_id, product_name, product_description, product_price, version, deleted_at)
		SELECT 1, 'Chair', '', 1, n, CASE WHEN n = 3 THEN now() END FROM generate_series(1, 5) n`)
	run(t, conn, `INSERT INTO images (product_id, position, source_url, status, job_state) VALUES (1, 0, 'x', 'ready', 'idle')`)
	return 5
}

// A restored database assigns no id twice.
func TestRestored(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	conn, store := connect(t, dsn), postgres.NewStore(open(t, config(dsn), prometheus.NewRegistry()))
	seed(t, conn)
	// A backup that is loaded as rows only leaves the sequences at their start.
	run(t, conn, `ALTER TABLE products ALTER COLUMN id RESTART WITH 2`)
	run(t, conn, `ALTER TABLE users ALTER COLUMN id RESTART`)
	run(t, conn, `ALTER TABLE images ALTER COLUMN id RESTART`)
	const jump = 1000
	next := map[string]int64{"users": 2 + jump, "products": 6 + jump, "images": 2 + jump}
	for want := range int64(2) { // safe to repeat
		epoch, err := store.Restored(t.Context(), jump)
		if err != nil || epoch != want+1 {
			t.Fatalf("got epoch %d and %v, want %d", epoch, err, want+1)
		}
		if _, stored, err := store.Installation(t.Context()); err != nil || stored != epoch {
			t.Errorf("the installation has epoch %d, %v, want %d", stored, err, epoch)
		}
		for table, id := range next {
			if got := scalar[int64](t, conn, `SELECT nextval(pg_get_serial_sequence($1, 'id'))`, table); got != id {
				t.Errorf("the next of %s is %d, want %d", table, got, id)
			}
			next[table] = id + jump + 1
		}
	}
	empty := migrated(t)
	if _, err := postgres.NewStore(open(t, config(empty), prometheus.NewRegistry())).Restored(t.Context(), jump); err != nil {
		t.Errorf("an empty database: %v", err)
	}
	if got := scalar[int64](t, connect(t, empty), `SELECT nextval(pg_get_serial_sequence('products', 'id'))`); got != jump+1 {
		t.Errorf("the first product of an empty database is %d, want %d", got, jump+1)
	}
}

func TestRaiseVersions(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	conn, store := connect(t, dsn), postgres.NewStore(open(t, config(dsn), prometheus.NewRegistry()))
	all := seed(t, conn)
	before := scalar[int64](t, conn, `SELECT sum(version)::bigint FROM products`)
	updated := scalar[string](t, conn, `SELECT max(updated_at)::text FROM products`)
	var after catalog.ProductID
	var batches []int
	for {
		n, last, err := store.IncrementVersions(t.Context(), after, 2, 100)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		batches, after = append(batches, n), last
	}
	if len(batches) != 3 || batches[2] != 1 || after != 5 {
		t.Errorf("got batches of %v up to product %d, want 2, 2 and 1 up to 5", batches, after)
	}
	if got := scalar[int64](t, conn, `SELECT sum(version)::bigint FROM products`); got != before+int64(all)*100 {
		t.Errorf("the sum of versions is %d, want %d: each raised once, deleted products, too", got, before+int64(all)*100)
	}
	if got := scalar[string](t, conn, `SELECT max(updated_at)::text FROM products`); got != updated {
		t.Errorf("updated_at is %s, want it unchanged", got)
	}
}
