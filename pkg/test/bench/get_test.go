package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/redis/go-redis/v9"
	"github.com/shopspring/decimal"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
)

// How large the rounds are: a tenth of a second or two for each side.
const (
	hitRound  = 2000
	missRound = 400
)

// reading is the two sides of GET /products/:id.
type reading struct {
	*stage
	products    int
	selectText  string // what our store asks Postgres for a product
	ours, other load
}

// newReading plants products with three ready pictures and starts both servers.
func newReading(tb testing.TB, products, clients int) *reading {
	tb.Helper()
	r := &reading{stage: newStage(tb), products: products}
	name := func(i int) string { return "Kettle " + strconv.Itoa(i) }
	r.plant(tb, crop{users: 1, products: products, pictures: 3, name: name})
	r.selectText = r.overheard(tb, func(store *postgres.Store) error {
		_, err := store.Product(tb.Context(), 1)
		return err
	})[0]
	r.ours = newLoad(tb, r.server.Addr(), clients)
	r.other = newLoad(tb, r.serveBare(tb), clients)
	return r
}

// serveBare serves what a program without layers would: /hit/ID is one GET of what our cache holds, /miss/ID is one GET, one
// SELECT and one SET. It returns its address.
func (r *reading) serveBare(tb testing.TB) string {
	tb.Helper()
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	app.Get("/hit/:id", func(c *fiber.Ctx) error {
		frame, err := r.redis.Get(c.Context(), r.key(c.Params("id"))).Bytes()
		if err != nil {
			return err
		}
		c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
		return c.Send(frame[bytes.IndexByte(frame, '{'):]) // what comes before the document has no brace
	})
	app.Get("/miss/:id", func(c *fiber.Ctx) error {
		body, err := r.bareRead(c.Context(), c.Params("id"))
		if err != nil {
			return err
		}
		c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
		return c.Send(body)
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	served := make(chan error, 1)
	go func() { served <- app.Listener(ln) }()
	tb.Cleanup(func() {
		must(tb, app.Shutdown())
		must(tb, <-served)
	})
	return ln.Addr().String()
}

// bareKey is where the bare side keeps what it has read.
func (r *reading) bareKey(id string) string { return r.cfg.Redis.KeyPrefix + "bare:{" + id + "}" }

// bareRead is a read through the cache in one function.
func (r *reading) bareRead(ctx context.Context, id string) ([]byte, error) {
	body, err := r.redis.Get(ctx, r.bareKey(id)).Bytes()
	if err == nil {
		return body, errors.New("the cache has it: this is no miss")
	}
	if !errors.Is(err, redis.Nil) {
		return nil, err
	}
	number, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return nil, err
	}
	if body, err = r.bareSelect(ctx, number); err != nil {
		return nil, err
	}
	return body, r.redis.Set(ctx, r.bareKey(id), body, r.cfg.Redis.TTL).Err()
}

// bareProduct is a product's row and its JSON in one.
type bareProduct struct {
	ID          int64       `json:"id"`
	UserID      int64       `json:"user_id"`
	Name        string      `json:"product_name"`
	Description string      `json:"product_description"`
	Price       string      `json:"product_price"`
	Sources     []string    `json:"product_images"`
	Compressed  []string    `json:"compressed_product_images"`
	Images      []bareImage `json:"images"`
	ImageStatus string      `json:"image_status"`
	Version     int64       `json:"version"`
	Revision    int64       `json:"revision"`
	CreatedAt   string      `json:"created_at"`
	UpdatedAt   string      `json:"updated_at"`
}

type bareImage struct {
	ID          int64           `json:"id"`
	Position    int             `json:"position"`
	SourceURL   string          `json:"source_url"`
	Status      string          `json:"status"`
	Attempts    int             `json:"attempts"`
	Error       *struct{}       `json:"error"`
	Width       int             `json:"width"`
	Height      int             `json:"height"`
	SourceBytes int64           `json:"source_bytes"`
	BytesSaved  int64           `json:"bytes_saved"`
	Placeholder string          `json:"placeholder"`
	Renditions  []bareRendition `json:"renditions"`
}

type bareRendition struct {
	Name   string `json:"name"`
	Format string `json:"format"`
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Bytes  int64  `json:"bytes"`
	Key    string `json:"key,omitempty"`
	Marked bool   `json:"default,omitempty"`
	URL    string `json:"url"`
}

// bareSelect reads a product whose pictures are all ready, with the statement of our store, and returns its JSON.
func (r *reading) bareSelect(ctx context.Context, id int64) ([]byte, error) {
	var (
		p                           bareProduct
		price                       decimal.Decimal
		created, updated            time.Time
		sources, compressed, images []byte
		deleted                     bool
	)
	err := r.pool.QueryRow(ctx, r.selectText, id).Scan(&p.ID, &p.UserID, &p.Name, &p.Description, &price,
		&sources, &compressed, &p.Version, &p.Revision, &created, &updated, &deleted, &images)
	if err != nil {
		return nil, err
	}
	err = errors.Join(json.Unmarshal(sources, &p.Sources), json.Unmarshal(compressed, &p.Compressed),
		json.Unmarshal(images, &p.Images))
	if err != nil {
		return nil, err
	}
	const layout = "2006-01-02T15:04:05.000000Z"
	p.Price, p.ImageStatus = price.StringFixed(2), "ready"
	p.CreatedAt, p.UpdatedAt = created.UTC().Format(layout), updated.UTC().Format(layout)
	for i, key := range p.Compressed {
		p.Compressed[i] = publicURL + "/" + key
	}
	for i := range p.Images {
		for j := range p.Images[i].Renditions {
			rendition := &p.Images[i].Renditions[j]
			if rendition.Marked {
				p.Images[i].BytesSaved, rendition.Marked = p.Images[i].SourceBytes-rendition.Bytes, false
			}
			rendition.URL, rendition.Key = publicURL+"/"+rendition.Key, ""
		}
	}
	return json.Marshal(p)
}

// path returns the function that goes round the products.
func (r *reading) path(route string) func(i int) string {
	return func(i int) string { return route + strconv.Itoa(i%r.products+1) }
}

// fill reads every product once through our cache.
func (r *reading) fill(tb testing.TB) {
	tb.Helper()
	for id := range r.products {
		_, err := r.service.Get(tb.Context(), catalog.ProductID(id+1))
		must(tb, err)
	}
}

// empty takes the first n products out of both caches.
func (r *reading) empty(n int) error {
	ctx := context.Background()
	pipe := r.redis.Pipeline()
	for i := range n {
		id := strconv.Itoa(i + 1)
		pipe.Unlink(ctx, r.key(id))
		pipe.Unlink(ctx, r.bareKey(id))
	}
	_, err := pipe.Exec(ctx)
	return err
}

// hit and miss are the pairs of sides.
func (r *reading) hit() (ours, other side) {
	return side{run: func(n int) (sample, error) { return r.ours.run(n, r.path("/products/")) }},
		side{run: func(n int) (sample, error) { return r.other.run(n, r.path("/hit/")) }}
}

func (r *reading) miss() (ours, other side) {
	return side{prepare: r.empty, run: func(n int) (sample, error) { return r.ours.run(n, r.path("/products/")) }},
		side{prepare: r.empty, run: func(n int) (sample, error) { return r.other.run(n, r.path("/miss/")) }}
}

// BenchmarkGetProduct is GET /products/:id over HTTP, beside a bare Fiber handler.
func BenchmarkGetProduct(b *testing.B) {
	r := newReading(b, 1000, conns)
	b.Run("hit", func(b *testing.B) {
		r.fill(b)
		before := r.store.reads.Load()
		ours, other := r.hit()
		compare(b, hitRound, ours, other)
		if read := r.store.reads.Load() - before; read > int64(b.N/1000) {
			b.Errorf("%d of %d reads were no hits", read, b.N)
		}
	})
	b.Run("miss", func(b *testing.B) {
		ours, other := r.miss()
		before := r.store.reads.Load()
		compare(b, missRound, ours, other)
		if read := r.store.reads.Load() - before; read < int64(b.N) {
			b.Errorf("only %d of %d reads were misses", read, b.N)
		}
	})
}

func TestGet(t *testing.T) {
	t.Parallel()
	const products = 5
	r := newReading(t, products, 2)
	if err := r.empty(products); err != nil {
		t.Fatal(err)
	}
	for id := range products {
		path := "/" + strconv.Itoa(id+1)
		sameAnswers(t, r, "/products"+path, "/miss"+path)
		sameAnswers(t, r, "/products"+path, "/hit"+path) // now our cache has it
	}
	for name, sides := range map[string]func() (ours, other side){"hit": r.hit, "miss": r.miss} {
		ours, other := sides()
		for _, s := range []side{ours, other} {
			if got := s.round(t, products); len(got.each) != products {
				t.Errorf("%s: %d answers, want %d", name, len(got.each), products)
			}
		}
	}
	if _, err := r.bareRead(t.Context(), "1"); err == nil {
		t.Error("the bare side takes a hit for a miss")
	}
}
