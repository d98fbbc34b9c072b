package main

import (
	"context"
	"fmt"
	"strconv"
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
	"vitrine.io/pkg/domain/scheduler"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/pipeline"
)

const (
	creators    = 16 // concurrent, on 20 connections
	createRound = 200
)

// recordStatements returns the statements that our store sends when fn uses it, in order. The bare side sends the same.
func (s *instance) recordStatements(tb testing.TB, fn func(*postgres.Store) error) []string {
	tb.Helper()
	core, logs := observer.New(zap.WarnLevel)
	cfg := s.cfg.Postgres
	cfg.SlowQuery = 1 // a nanosecond: every statement is slow, and is logged
	db, err := postgres.Open(cfg, zap.New(core), prometheus.NewRegistry())
	must(tb, err)
	defer db.Close()
	must(tb, fn(postgres.NewStore(db).Releasing(windows)))
	var texts []string
	for _, line := range logs.All() {
		if text, ok := line.ContextMap()["sql"].(string); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// windows are the defaults of the scheduler.
var windows = scheduler.Windows{Host: 64, Total: 480}

// createPair are the two sides of creating a product with three images.
type createPair struct {
	*instance
	texts [4]string // the statements of our store: product, images, jobs, outbox
	input catalog.NewProductInput
	hash  string
}

func newCreatePair(tb testing.TB) *createPair {
	tb.Helper()
	c := &createPair{instance: newInstance(tb), hash: pipeline.Default().Hash()}
	user, err := c.service.CreateUser(tb.Context(), "Ada", "ada@example.com")
	must(tb, err)
	c.input = catalog.NewProductInput{
		UserID: user.ID, Name: "Kettle", Description: "A kettle for every kitchen.",
		Price: decimal.RequireFromString("19.90"), PriceSet: true,
	}
	for i := range 3 {
		c.input.ImageURLs = append(c.input.ImageURLs, fmt.Sprintf("https://origin.example/catalogue/photo-%d.jpg", i))
	}
	must(tb, c.ours())
	p, err := catalog.NewProduct(c.input)
	must(tb, err)
	for i := range p.Images {
		p.Images[i].JobState, p.Images[i].JobID, p.Images[i].Class = catalog.Queued, newID(), catalog.Live
	}
	texts := c.recordStatements(tb, func(store *postgres.Store) error {
		_, err := store.Insert(tb.Context(), p, func(p catalog.Product) []catalog.Outgoing {
			changed := event.ProductChanged{ProductID: int64(p.ID), Version: 1}
			return []catalog.Outgoing{{Message: event.New(newID(), p.ID.String(), changed)}}
		})
		return err
	})
	if n := copy(c.texts[:], texts); n != len(c.texts) || n != len(texts) {
		tb.Fatalf("an insert is no longer %d statements: %q", len(c.texts), texts)
	}
	return c
}

// ours creates a product as POST /products does, from the validated input to the invalidation of the cache.
func (c *createPair) ours() error {
	_, err := c.service.Create(context.Background(), c.input, "")
	return err
}

// bareImageRow is a new image in the format of the statement's parameter.
const bareImageRow = `{"position": %d, "source_url": %q, "status": "pending",` +
	` "fencing_token": 0, "attempts": 0, "prefix": "", "error_code": "", "error_detail": "",` +
	` "reprocess_error": "",` +
	` "source_sha256": "", "source_bytes": 0, "width": 0, "height": 0, "pipeline_hash": %q, "renditions": [],` +
	` "placeholder": "", "requested_at": %q, "output_hash": "", "original_key": "", "backfill_id": 0}`

// bareJobRow is a new job in the format of the statement's parameter.
const bareJobRow = `{"image_id": %d, "product_id": %d, "user_id": %d, "host": "origin.example", "class": "live",` +
	` "job_state": "queued", "job_id": %q, "traceparent": "", "fencing_token": 0, "unreported_attempts": 0, "attempts": 0,` +
	` "prefix": "", "poison_sha256": "", "pipeline_hash": %q, "requested_at": %q, "not_before": %[6]q, "due_at": %[6]q,` +
	` "backfill_id": 0, "skip_missing": false}`

// bareOutboxRow is a message in the format of the statement's parameter.
const bareOutboxRow = `{"event_id": %q, "topic": %q, "key": "%d", "type": %q, "payload": %q, "delay": 0, ` +
	`"headers": {"event-id": %[1]q, "event-type": %[4]q, "event-version": "1"}}`

// bareImageID is a row that the statement returns for a new image.
type bareImageID struct {
	ID       int64
	Position int
}

// bareRelease is a row that the statement returns for a new job.
type bareRelease struct {
	ImageID    int64
	ReleasedAt *time.Time
}

// other inserts the same rows with the same statements, in one function.
func (c *createPair) other() error {
	ctx := context.Background()
	tx, err := c.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // after Commit it does nothing
	var (
		id        int64
		createdAt time.Time
	)
	if err := tx.QueryRow(ctx, c.texts[0], int64(c.input.UserID), c.input.Name, c.input.Description, c.input.Price.String(),
		c.input.ImageURLs, []string{}, int64(1), int64(1)).Scan(&id, &createdAt); err != nil {
		return err
	}
	jobIDs := make([]string, len(c.input.ImageURLs))
	images := make([]string, len(jobIDs))
	for i, source := range c.input.ImageURLs {
		jobIDs[i] = newID()
		images[i] = fmt.Sprintf(bareImageRow, i, source, c.hash, createdAt.Format(time.RFC3339Nano))
	}
	rows, err := tx.Query(ctx, c.texts[1], id, "["+strings.Join(images, ",")+"]")
	if err != nil {
		return err
	}
	created, err := pgx.CollectRows(rows, pgx.RowToStructByPos[bareImageID])
	if err != nil {
		return err
	}
	jobs := make([]string, len(created))
	positions := map[int64]int{}
	for i, image := range created {
		positions[image.ID] = image.Position
		jobs[i] = fmt.Sprintf(bareJobRow, image.ID, id, c.input.UserID, jobIDs[image.Position], c.hash,
			createdAt.Format(time.RFC3339Nano))
	}
	if rows, err = tx.Query(ctx, c.texts[2], "["+strings.Join(jobs, ",")+"]", windows.Host/2, windows.Total/2); err != nil {
		return err
	}
	released, err := pgx.CollectRows(rows, pgx.RowToStructByPos[bareRelease])
	if err != nil {
		return err
	}
	messages := []string{fmt.Sprintf(bareOutboxRow, newID(), event.TopicChanged, id, event.TypeProductChanged,
		fmt.Sprintf(`{"product_id":%d,"product_version":1,"deleted":false}`, id))}
	for _, job := range released {
		if job.ReleasedAt == nil {
			continue
		}
		at := positions[job.ImageID]
		request := fmt.Sprintf(`{"product_id":%d,"image_id":%d,"source_url":%q,"pipeline_hash":%q}`,
			id, job.ImageID, c.input.ImageURLs[at], c.hash)
		messages = append(messages, fmt.Sprintf(bareOutboxRow, jobIDs[at], event.TopicRequested, id,
			event.TypeImageRequested, request))
	}
	if _, err := tx.Exec(ctx, c.texts[3], "["+strings.Join(messages, ",")+"]"); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

func (c *createPair) sides() (ours, other side) {
	times := func(do func() error) side {
		return side{run: func(n int) (sample, error) { return runConcurrently(creators, n, func(int, int) error { return do() }) }}
	}
	return times(c.ours), times(c.other)
}

// BenchmarkCreateProduct compares Service.Create with the same SQL.
func BenchmarkCreateProduct(b *testing.B) {
	c := newCreatePair(b)
	b.Run("images=3", func(b *testing.B) {
		ours, other := c.sides()
		compare(b, createRound, ours, other)
	})
}

func TestCreate(t *testing.T) {
	t.Parallel()
	c := newCreatePair(t)
	_, err := c.pool.Exec(t.Context(), "TRUNCATE products, images, image_jobs, outbox RESTART IDENTITY")
	must(t, err)
	must(t, c.ours())
	must(t, c.other())
	ours, other := c.rows(t, 1), c.rows(t, 2)
	if ours != other {
		t.Errorf("ours wrote\n%s\nthe bare side\n%s", ours, other)
	}
	for _, word := range []string{"Kettle", "photo-2.jpg", event.TypeProductChanged, event.TypeImageRequested, c.hash} {
		if !strings.Contains(ours, word) {
			t.Errorf("%q is not in\n%s", word, ours)
		}
	}
	oursTally, bareTally := c.sides()
	oursTally.round(t, 3)
	bareTally.round(t, 3)
	var products int
	must(t, c.pool.QueryRow(t.Context(), "SELECT count(*) FROM products").Scan(&products))
	if products != 8 {
		t.Errorf("got %d products, want 8", products)
	}
}

// rows returns all rows of a created product, without the values that differ between products.
func (c *createPair) rows(t *testing.T, id int64) string {
	t.Helper()
	var text string
	must(t, c.pool.QueryRow(t.Context(), `
		SELECT jsonb_pretty(jsonb_build_object(
			'product', (SELECT to_jsonb(p) - '{id,created_at,updated_at}'::text[] FROM products p WHERE id = $1),
			'images', (SELECT jsonb_agg(to_jsonb(i) - '{id,product_id,requested_at,updated_at}'::text[]
				|| jsonb_build_object('requested', i.requested_at = p.created_at) ORDER BY position)
				FROM images i JOIN products p ON p.id = i.product_id WHERE product_id = $1),
			'jobs', (SELECT jsonb_agg(
				to_jsonb(j) - '{image_id,product_id,job_id,requested_at,not_before,due_at,released_at}'::text[]
				|| jsonb_build_object('job_id', EXISTS (SELECT FROM outbox o WHERE o.event_id = j.job_id
					AND o.payload->>'image_id' = j.image_id::text AND o.payload->>'product_id' = j.product_id::text),
					'due', (j.due_at, j.not_before, j.requested_at) = (p.created_at, p.created_at, p.created_at),
					'released', j.released_at >= p.created_at) ORDER BY j.image_id)
				FROM image_jobs j JOIN products p ON p.id = j.product_id WHERE product_id = $1),
			'outbox', (SELECT jsonb_agg(to_jsonb(o) - '{id,event_id,key,payload,headers,available_at,created_at}'::text[]
				|| jsonb_build_object('headers', o.headers - 'event-id', 'named', o.headers->>'event-id' = o.event_id::text,
					'payload', o.payload::jsonb - '{product_id,image_id}'::text[]) ORDER BY o.id)
				FROM outbox o WHERE key = $2)))`, id, strconv.FormatInt(id, 10)).Scan(&text))
	return text
}
