package postgres_test

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
)

func TestRecentSources(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	conn, store := connect(t, dsn), postgres.NewStore(open(t, config(dsn), prometheus.NewRegistry()))
	run(t, conn, `INSERT INTO users (name, email, email_key)
		SELECT 'user', m, m FROM (SELECT 'u' || n || '@example.com' AS m FROM generate_series(1, 6) n) n`)
	run(t, conn, `INSERT INTO products (user_id, product_name, product_description, product_price, deleted_at)
		SELECT n, 'product', '', 1, CASE WHEN n = 4 THEN now() END FROM generate_series(1, 6) n`)
	run(t, conn, `INSERT INTO images (product_id, position, source_url, status, updated_at) VALUES
		(1, 0, 'http://a.test/old', 'ready', now()), (1, 1, 'http://a.test/new', 'ready', now()),
		(1, 2, 'http://a.test/failed', 'failed', now()), (2, 0, 'http://b.test', 'pending', now()),
		(3, 0, 'http://c.test', 'ready', now() - interval '61 minutes'), (4, 0, 'http://d.test', 'ready', now()),
		(5, 0, 'http://e.test', 'ready', now() - interval '59 minutes'), (6, 0, 'http://f.test', 'ready', now())`)
	all := []catalog.RecentSource{
		{UserID: 1, URL: "http://a.test/new"}, {UserID: 5, URL: "http://e.test"}, {UserID: 6, URL: "http://f.test"},
	}
	for limit, want := range map[int][]catalog.RecentSource{10: all, 2: all[:2]} {
		if got, err := store.RecentSources(t.Context(), time.Hour, limit); err != nil || !slices.Equal(got, want) {
			t.Errorf("limit %d: got %v, %v, want %v", limit, got, err, want)
		}
	}
}
