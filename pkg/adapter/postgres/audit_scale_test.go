package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/test/catalogtest"
)

// fullBucket has the object of every image that fillImages adds.
type fullBucket struct{ store *postgres.Store }

const imagesOfProduct = 5

// key returns the key of an image's object. fillImages computes the same in SQL.
func (fullBucket) key(image int) string {
	return fmt.Sprintf("products/%d/%d/1-a/x", (image-1)/imagesOfProduct+1, image)
}

// Page lists the objects of one product, or nothing.
func (b fullBucket) Page(_ context.Context, prefix, _ string, _ int) (found []maintenance.Object, more bool, err error) {
	var product, image int
	if n, _ := fmt.Sscanf(prefix, "products/%d/%d/", &product, &image); n == 0 {
		return nil, false, nil
	}
	for n := range imagesOfProduct {
		if key := b.key((product-1)*imagesOfProduct + n + 1); strings.HasPrefix(key, prefix) {
			found = append(found, maintenance.Object{Key: key, Size: 7})
		}
	}
	return found, false, nil
}

func (fullBucket) ForgetOriginal(context.Context, catalog.ProductID, catalog.ImageID, string) error {
	return errors.New("no image has an original")
}

func (b fullBucket) Owner(ctx context.Context) (string, error) {
	id, _, err := b.store.Installation(ctx)
	return id, err
}

// ReprocessIf implements maintenance.ImageReprocessor.
func (fullBucket) ReprocessIf(context.Context, catalog.ProductID, catalog.ImageID, catalog.Filter, time.Duration) error {
	return errors.New("no object is missing")
}

// Two processes share a pass over 100,000 images, half of them published, and check each image once.
func TestAuditorScale(t *testing.T) {
	t.Parallel()
	const images = 100_000
	dsn := migrated(t)
	conn := connect(t, dsn)
	run(t, conn, `INSERT INTO users (name, email, email_key) VALUES ('Ada', 'ada@example.com', 'ada@example.com')`)
	run(t, conn, `INSERT INTO products (user_id, product_name, product_description, product_price)
		SELECT 1, 'Chair', '', 1 FROM generate_series(1, $1::int)`, images/imagesOfProduct)
	run(t, conn, `INSERT INTO images (product_id, position, source_url, status, renditions)
		SELECT (n - 1) / $2 + 1, n, 'x', CASE WHEN n > $1 / 2 THEN 'ready' ELSE 'failed' END, jsonb_build_array(
			jsonb_build_object('key', format('products/%s/%s/1-a/x', (n - 1) / $2 + 1, n), 'bytes', 7))
		FROM generate_series(1, $1::int) n`, images, imagesOfProduct)
	cfg := maintenance.AuditorConfig{
		Enabled: true, Interval: time.Millisecond, Pass: time.Hour, Lease: time.Minute, Batch: 5000, Rows: 1000,
		MaxObjectRate: 1e9, MaxRowRate: 1e9, MinAge: time.Hour, Grace: time.Hour,
	}
	store := postgres.NewStore(open(t, config(dsn), prometheus.NewRegistry()))
	started, err := store.StartPass(t.Context(), "rows", rowShards(images), 0)
	if err != nil || !started {
		t.Fatalf("got %v, %v, want a pass", started, err)
	}
	run(t, conn, `UPDATE checkpoints SET started_at = now() - interval '1 day', due_at = now()`) // late: no step waits
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var both sync.WaitGroup
	regs := [2]*prometheus.Registry{}
	for i := range regs {
		regs[i] = prometheus.NewRegistry()
		own := postgres.NewStore(open(t, config(dsn), prometheus.NewRegistry()))
		auditor := maintenance.NewAuditor(maintenance.AuditorDeps{
			Checkpoints: onePass{own, stop}, References: own, Bucket: fullBucket{own}, Catalog: fullBucket{own}, Now: time.Now,
			Log: zap.NewNop(),
		}, cfg, regs[i])
		both.Go(func() { _ = auditor.Run(ctx) })
	}
	both.Wait()
	var by [2]float64
	for i, reg := range regs {
		by[i] = catalogtest.Metric(t, reg, "vitrine_maintenance_auditor_rows_checked_total")
	}
	if by[0]+by[1] != images/2 {
		t.Errorf("the processes checked %v images, want %d in all", by, images/2)
	}
}

// rowShards divides the images into ten shards.
func rowShards(images int) []maintenance.Range {
	shards := make([]maintenance.Range, 10)
	for i := range shards {
		shards[i] = maintenance.Range{After: fmt.Sprint(images / 10 * i), Until: fmt.Sprint(images / 10 * (i + 1))}
	}
	return shards
}

// onePass stops the auditor when the pass over the rows has ended.
type onePass struct {
	*postgres.Store
	stop context.CancelFunc
}

// StartPass implements maintenance.Checkpoints.
func (p onePass) StartPass(ctx context.Context, scan string, ranges []maintenance.Range, every time.Duration) (bool, error) {
	if scan == "rows" {
		p.stop()
		return false, nil
	}
	return p.Store.StartPass(ctx, scan, ranges, every)
}
