package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/imageserver"
)

// clientOptions are the common flags of burst and load.
type clientOptions struct {
	api, source string
	images      int
	size        string
	wait        time.Duration
}

func clientFlags(flags *flag.FlagSet) *clientOptions {
	w := &clientOptions{}
	flags.StringVar(&w.api, "api", "", "URL of the API")
	flags.StringVar(&w.source, "source", "", "URL of the image server")
	flags.IntVar(&w.images, "images", 1, "images of each product")
	flags.StringVar(&w.size, "size", "640x480", "size of the images in pixels")
	flags.DurationVar(&w.wait, "wait", 10*time.Minute, "how long to wait for the last image after the last POST")
	return w
}

// loadClient posts and reads products and counts the results.
type loadClient struct {
	clientOptions
	client   *client.Client // with shared connections
	user     int64
	mu       sync.Mutex
	tally    tally
	accepted []int64
}

func newLoadClient(ctx context.Context, w clientOptions) (*loadClient, error) {
	c := &loadClient{clientOptions: w, client: newAPI(w.api, false)}
	err := until(ctx, "a user", time.Minute, time.Second, func(ctx context.Context) (err error) {
		c.user, err = c.client.CreateUser(ctx, "E2E", fmt.Sprintf("e2e-%d@example.com", time.Now().UnixNano()))
		return err
	})
	return c, err
}

// post creates the nth product with a client.
func (c *loadClient) post(ctx context.Context, with *client.Client, n int) {
	sources := make([]string, c.images)
	for i := range sources {
		sources[i] = fmt.Sprintf("%s/%s/%d-%d-%d.jpg", strings.TrimRight(c.source, "/"), c.size, c.user, n, i)
	}
	p, refused, err := create(ctx, with, client.NewProduct{
		UserID: c.user, Name: fmt.Sprintf("E2E %d", n), Price: "9.99", Sources: sources,
	})
	c.count(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if refused {
		c.tally.Refused++
	}
	if err == nil {
		c.accepted = append(c.accepted, p.ID)
		c.tally.Accepted++
		c.tally.Images += len(sources)
	}
}

// create creates a product. If that fails, refused reports whether the response was a 503 with Retry-After. With the key a
// repetition is safe, so a 503 has to have it even if the outcome is unknown.
func create(ctx context.Context, with *client.Client, n client.NewProduct) (p client.Product, refused bool, err error) {
	r, err := with.Do(ctx, http.MethodPost, "/products", n, "Idempotency-Key", uuid.NewString())
	if err != nil {
		return p, false, err
	}
	if r.Status != http.StatusCreated {
		refused = r.Status == http.StatusServiceUnavailable && r.Header.Get("Retry-After") != ""
		return p, refused, fmt.Errorf("POST /products: %d %.200s", r.Status, r.Body)
	}
	p, err = r.Product()
	return p, false, err
}

// read reads the first or else the last accepted product with a client. It does nothing if there is none.
func (c *loadClient) read(ctx context.Context, with *client.Client, first bool) {
	c.mu.Lock()
	var id int64
	if n := len(c.accepted); n > 0 && first {
		id = c.accepted[0]
	} else if n > 0 {
		id = c.accepted[n-1]
	}
	c.mu.Unlock()
	if id == 0 {
		return
	}
	_, err := with.Product(ctx, id)
	c.count(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tally.Reads++
	if err != nil {
		c.tally.Unread++
	}
}

// count counts a request that had the error err, or nil.
func (c *loadClient) count(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tally.Requests++
	if err != nil {
		c.tally.addFailure(err)
	}
}

// settle waits until every accepted product is settled and adds them to the tally.
func (c *loadClient) settle(ctx context.Context) {
	waiting := c.accepted
	last := map[int64]error{}
	err := until(ctx, "the images", c.wait, time.Second, func(ctx context.Context) error {
		waiting = c.poll(ctx, waiting, last)
		if len(waiting) > 0 {
			return fmt.Errorf("%d products are not settled", len(waiting))
		}
		return nil
	})
	if err == nil {
		return
	}
	for _, id := range waiting {
		cause := last[id]
		if cause == nil {
			cause = err
		}
		c.tally.addMissing(id, cause)
	}
}

// poll reads the products in waiting and returns those that are not settled. It stops at the twentieth of them, to limit the
// load on the API.
func (c *loadClient) poll(ctx context.Context, waiting []int64, last map[int64]error) []int64 {
	var pending []int64
	for i, id := range waiting {
		if len(pending) == 20 {
			return append(pending, waiting[i:]...)
		}
		p, err := c.client.Product(ctx, id)
		if err != nil || !p.Settled() {
			last[id] = err
			pending = append(pending, id)
			continue
		}
		c.tally.add(p)
	}
	return pending
}

// print writes the tally as JSON.
func (c *loadClient) print(out io.Writer) error {
	return json.NewEncoder(out).Encode(c.tally)
}

// runBurst posts products as fast as the API accepts them, and waits for their images.
func runBurst(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	w := clientFlags(flags)
	products := flags.Int("products", 1, "products to post")
	clients := flags.Int("clients", 8, "clients that post concurrently")
	download := flags.Bool("download", false, "download every URL in the products' JSON")
	counted := flags.Bool("counted", false, "compare with the downloads that the image server reports under /downloads")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *clients < 1 {
		return fmt.Errorf("-clients %d: must be at least 1", *clients)
	}
	c, err := newLoadClient(ctx, *w)
	if err != nil {
		return err
	}
	before, err := c.fetched(ctx, *counted)
	if err != nil {
		return err
	}
	numbers := make(chan int)
	var posting sync.WaitGroup
	for range *clients {
		posting.Go(func() {
			for n := range numbers {
				c.post(ctx, c.client, n)
			}
		})
	}
	for n := range *products {
		numbers <- n
	}
	close(numbers)
	posting.Wait()
	c.settle(ctx)
	after, err := c.fetched(ctx, *counted)
	if err != nil {
		return err
	}
	c.tally.Fetched = after - before
	if *download {
		for _, id := range c.accepted {
			n, err := downloadAll(ctx, c.client, id)
			c.tally.Downloaded += n
			c.count(err)
		}
	}
	return c.print(out)
}

// fetched returns the number of downloads that the image server has served, or 0 unless counted is set.
func (c *loadClient) fetched(ctx context.Context, counted bool) (int, error) {
	if !counted {
		return 0, nil
	}
	var d imageserver.Downloads
	err := newAPI(c.source, false).Call(ctx, http.MethodGet, "/downloads", nil, http.StatusOK, &d)
	return d.Total, err
}

// runLoad sends requests at a constant rate until its input ends, and then waits for the images. Every second request uses
// a new connection, the others reuse connections: a server that stops must lose neither.
func runLoad(ctx context.Context, flags *flag.FlagSet, args []string, in io.Reader, out io.Writer) error {
	w := clientFlags(flags)
	every := flags.Duration("every", 100*time.Millisecond, "time between two requests")
	posts := flags.Int("posts", 10, "every Nth request is a POST, the others are GETs")
	cached := flags.Bool("cached", false, "all GETs are of the first product, so that the cache has it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := newLoadClient(ctx, *w)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { // the caller closes the input
		defer close(ended)
		_, _ = io.Copy(io.Discard, in)
	}()
	c.sendSteadily(ctx, ended, *every, *posts, *cached)
	c.settle(ctx)
	return c.print(out)
}

// sendSteadily sends the requests of runLoad.
func (c *loadClient) sendSteadily(
	ctx context.Context, ended <-chan struct{}, every time.Duration, posts int, cached bool,
) {
	clients := []*client.Client{newAPI(c.api, true), newAPI(c.api, false)}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var sending sync.WaitGroup
	defer sending.Wait()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			return
		case <-ticker.C:
		}
		sending.Go(func() {
			if with := clients[n/posts%2]; n%posts == 0 {
				c.post(ctx, with, n)
			}
			if with := clients[n%2]; n%posts != 0 {
				c.read(ctx, with, cached)
			}
		})
	}
}

// runGet prints the body of a response if its status is one of -want.
func runGet(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	want := flags.String("want", strconv.Itoa(http.StatusOK), "expected statuses, separated by commas")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("get takes one URL")
	}
	got, err := newAPI("", true).Do(ctx, http.MethodGet, flags.Arg(0), nil)
	if err != nil {
		return err
	}
	if !strings.Contains(","+*want+",", fmt.Sprintf(",%d,", got.Status)) {
		return fmt.Errorf("GET %s: %d %s, want %s", flags.Arg(0), got.Status, http.StatusText(got.Status), *want)
	}
	_, err = out.Write(got.Body)
	return err
}
