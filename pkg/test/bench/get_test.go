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

// The sizes of the rounds: 0.1 to 0.2 s for each side.
const (
	hitRound  = 2000
	missRound = 400
)

// getPair are the two sides of GET /products/:id.
type getPair struct {
	*instance
	products    int
	selectText  string // the store's statement for a product
	ours, other load
}

// newGetPair seeds products with three ready images and starts both servers.
func newGetPair(tb testing.TB, products, clients int) *getPair {
	tb.Helper()
	r := &getPair{instance: newInstance(tb), products: products}
	name := func(i int) string { return "Kettle " + strconv.Itoa(i) }
	r.seed(tb, dataset{users: 1, products: products, images: 3, name: name})
	r.selectText = r.recordStatements(tb, func(store *postgres.Store) error {
		_, err := store.Product(tb.Context(), 1)
		return err
	})[0]
	r.ours = newLoad(tb, r.server.Addr(), clients)
	r.other = newLoad(tb, r.serveBare(tb), clients)
	return r
}

// serveBare starts a server without layers, and returns its address: /hit/ID is one GET of our cache's entry, /miss/ID is
// one GET, one SELECT and one SET.
func (r *getPair) serveBare(tb testing.TB) string {
	tb.Helper()
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	app.Get("/hit/:id", func(c *fiber.Ctx) error {
		frame, err := r.redis.Get(c.Context(), r.key(c.Params("id"))).Bytes()
		if err != nil {
			return err
		}
		c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
		return c.Send(frame[bytes.IndexByte(frame, '{'):]) // the frame before the document has no brace
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

// bareKey returns the key of a product in the bare side's cache.
func (r *getPair) bareKey(id string) string { return r.cfg.Redis.KeyPrefix + "bare:{" + id + "}" }

// bareRead reads through the cache, in one function.
func (r *getPair) bareRead(ctx context.Context, id string) ([]byte, error) {
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

// bareProduct is a product's row and its JSON.
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
	Reprocess   *struct{}       `json:"reprocess"`
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

// bareSelect reads a product with ready images, by the store's statement, and returns its JSON.
func (r *getPair) bareSelect(ctx context.Context, id int64) ([]byte, error) {
	var (
		p                           bareProduct
		price                       decimal.Decimal
		created, updated            time.Time
		sources, compressed, images []byte
		rows                        []struct{ Image bareImage } // without jobs: the images are ready
		deleted                     bool
	)
	err := r.pool.QueryRow(ctx, r.selectText, id).Scan(&p.ID, &p.UserID, &p.Name, &p.Description, &price,
		&sources, &compressed, &p.Version, &p.Revision, &created, &updated, &deleted, &images)
	if err != nil {
		return nil, err
	}
	err = errors.Join(json.Unmarshal(sources, &p.Sources), json.Unmarshal(compressed, &p.Compressed),
		json.Unmarshal(images, &rows))
	if err != nil {
		return nil, err
	}
	const layout = "2006-01-02T15:04:05.000000Z"
	p.Price, p.ImageStatus = price.StringFixed(2), "ready"
	p.CreatedAt, p.UpdatedAt = created.UTC().Format(layout), updated.UTC().Format(layout)
	for i, key := range p.Compressed {
		p.Compressed[i] = publicURL + "/" + key
	}
	for _, row := range rows {
		p.Images = append(p.Images, row.Image)
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

// path returns a function that returns the paths of all products in turn.
func (r *getPair) path(route string) func(i int) string {
	return func(i int) string { return route + strconv.Itoa(i%r.products+1) }
}

// fill reads every product once, so that our cache has it.
func (r *getPair) fill(tb testing.TB) {
	tb.Helper()
	for id := range r.products {
		_, err := r.service.Get(tb.Context(), catalog.ProductID(id+1))
		must(tb, err)
	}
}

// empty removes the first n products from both caches.
func (r *getPair) empty(n int) error {
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

// hit and miss return the two sides.
func (r *getPair) hit() (ours, other side) {
	return side{run: func(n int) (sample, error) { return r.ours.run(n, r.path("/products/")) }},
		side{run: func(n int) (sample, error) { return r.other.run(n, r.path("/hit/")) }}
}

func (r *getPair) miss() (ours, other side) {
	return side{prepare: r.empty, run: func(n int) (sample, error) { return r.ours.run(n, r.path("/products/")) }},
		side{prepare: r.empty, run: func(n int) (sample, error) { return r.other.run(n, r.path("/miss/")) }}
}

// BenchmarkGetProduct compares GET /products/:id over HTTP with a bare Fiber handler.
func BenchmarkGetProduct(b *testing.B) {
	r := newGetPair(b, 1000, conns)
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
	r := newGetPair(t, products, 2)
	if err := r.empty(products); err != nil {
		t.Fatal(err)
	}
	for id := range products {
		path := "/" + strconv.Itoa(id+1)
		sameResponses(t, r, "/products"+path, "/miss"+path)
		sameResponses(t, r, "/products"+path, "/hit"+path) // fills our cache
	}
	for name, sides := range map[string]func() (ours, other side){"hit": r.hit, "miss": r.miss} {
		ours, other := sides()
		for _, s := range []side{ours, other} {
			if got := s.round(t, products); len(got.each) != products {
				t.Errorf("%s: %d responses, want %d", name, len(got.each), products)
			}
		}
	}
	if _, err := r.bareRead(t.Context(), "1"); err == nil {
		t.Error("the bare side serves a miss from its cache")
	}
}
