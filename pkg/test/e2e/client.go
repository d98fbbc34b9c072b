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

	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/imageserver"
)

// wishes are the flags that burst and load share.
type wishes struct {
	api, source string
	pictures    int
	size        string
	wait        time.Duration
}

func wishFlags(flags *flag.FlagSet) *wishes {
	w := &wishes{}
	flags.StringVar(&w.api, "api", "", "URL of the API")
	flags.StringVar(&w.source, "source", "", "URL of the source of pictures")
	flags.IntVar(&w.pictures, "pictures", 1, "pictures of each product")
	flags.StringVar(&w.size, "size", "640x480", "their size")
	flags.DurationVar(&w.wait, "wait", 10*time.Minute, "how long the last picture may take after the last post")
	return w
}

// crowd is the products that a client has posted, and what it knows of them.
type crowd struct {
	wishes
	client   *client.Client // for what may wait
	user     int64
	mu       sync.Mutex
	tally    tally
	accepted []int64
}

func newCrowd(ctx context.Context, w wishes) (*crowd, error) {
	c := &crowd{wishes: w, client: newAPI(w.api, false)}
	err := until(ctx, "a user", time.Minute, time.Second, func(ctx context.Context) (err error) {
		c.user, err = c.client.CreateUser(ctx, "E2E", fmt.Sprintf("e2e-%d@example.com", time.Now().UnixNano()))
		return err
	})
	return c, err
}

// post adds the nth product with one of the clients.
func (c *crowd) post(ctx context.Context, with *client.Client, n int) {
	sources := make([]string, c.pictures)
	for i := range sources {
		sources[i] = fmt.Sprintf("%s/%s/%d-%d-%d.jpg", strings.TrimRight(c.source, "/"), c.size, c.user, n, i)
	}
	p, err := with.CreateProduct(ctx, client.NewProduct{
		UserID: c.user, Name: fmt.Sprintf("E2E %d", n), Price: "9.99", Sources: sources,
	})
	c.count(err)
	if err == nil {
		c.mu.Lock()
		c.accepted = append(c.accepted, p.ID)
		c.tally.Accepted++
		c.tally.Pictures += len(sources)
		c.mu.Unlock()
	}
}

// read reads the last accepted product with one of the clients, or as many as there are.
func (c *crowd) read(ctx context.Context, with *client.Client) {
	c.mu.Lock()
	var id int64
	if n := len(c.accepted); n > 0 {
		id = c.accepted[n-1]
	}
	c.mu.Unlock()
	if id == 0 {
		return
	}
	_, err := with.Product(ctx, id)
	c.count(err)
}

// count counts a request.
func (c *crowd) count(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tally.Requests++
	if err != nil {
		c.tally.refuse(err)
	}
}

// settle waits until every accepted product is settled, and counts how.
func (c *crowd) settle(ctx context.Context) {
	waiting := c.accepted
	last := map[int64]error{}
	err := until(ctx, "the pictures", c.wait, time.Second, func(ctx context.Context) error {
		waiting = c.round(ctx, waiting, last)
		if len(waiting) > 0 {
			return fmt.Errorf("%d products are not settled", len(waiting))
		}
		return nil
	})
	if err == nil {
		return
	}
	for _, id := range waiting {
		why := last[id]
		if why == nil {
			why = err
		}
		c.tally.gone(id, why)
	}
}

// round asks for the products that were not settled yet, in their order, and returns those that still are not. The
// twentieth of them ends it: later ones are hardly further, and asking is work for the API.
func (c *crowd) round(ctx context.Context, waiting []int64, last map[int64]error) []int64 {
	var still []int64
	for i, id := range waiting {
		if len(still) == 20 {
			return append(still, waiting[i:]...)
		}
		p, err := c.client.Product(ctx, id)
		if err != nil || !p.Settled() {
			last[id] = err
			still = append(still, id)
			continue
		}
		c.tally.add(p)
	}
	return still
}

// tell prints the tally.
func (c *crowd) tell(out io.Writer) error {
	return json.NewEncoder(out).Encode(c.tally)
}

// runBurst posts many products as fast as the API takes them, and waits for their pictures.
func runBurst(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	w := wishFlags(flags)
	products := flags.Int("products", 1, "products to post")
	clients := flags.Int("clients", 8, "that post at the same time")
	download := flags.Bool("download", false, "download every URL in the products' JSON")
	counted := flags.Bool("counted", false, "the source tells how often it was asked, under /downloads")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *clients < 1 {
		return fmt.Errorf("-clients %d: at least one has to post", *clients)
	}
	c, err := newCrowd(ctx, *w)
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
	return c.tell(out)
}

// fetched asks the source how many downloads it has served, if it tells.
func (c *crowd) fetched(ctx context.Context, tells bool) (int, error) {
	if !tells {
		return 0, nil
	}
	var d imageserver.Downloads
	err := newAPI(c.source, false).Call(ctx, http.MethodGet, "/downloads", nil, http.StatusOK, &d)
	return d.Total, err
}

// runLoad sends requests at a steady rate, whatever becomes of them, until its input ends; then it waits for the pictures.
// Every second request has a connection of its own, the others share some: a stopping server must lose neither.
func runLoad(ctx context.Context, flags *flag.FlagSet, args []string, in io.Reader, out io.Writer) error {
	w := wishFlags(flags)
	every := flags.Duration("every", 100*time.Millisecond, "between two requests")
	posts := flags.Int("posts", 10, "one in so many is a post, the others read")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := newCrowd(ctx, *w)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { // ends with the input, which whoever started the program ends
		defer close(ended)
		_, _ = io.Copy(io.Discard, in)
	}()
	c.steady(ctx, ended, *every, *posts)
	c.settle(ctx)
	return c.tell(out)
}

// steady sends the requests.
func (c *crowd) steady(ctx context.Context, ended <-chan struct{}, every time.Duration, posts int) {
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
				c.read(ctx, with)
			}
		})
	}
}

// runGet prints what one URL answers, if it answers as wanted.
func runGet(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	want := flags.String("want", strconv.Itoa(http.StatusOK), "the statuses that are wanted, with commas")
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
