package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/imageserver"
)

// How clients work.
const (
	clients       = 4
	clientTimeout    = 4 * time.Second // for an answer
	maxThinkMillis        = 400             // between two requests: up to so many milliseconds
	maxImages  = 3
	createTries   = 5
	retryPause    = 300 * time.Millisecond
	resolvePeriod = 60 * time.Second // for requests whose outcome is unknown, once all is healed
)

// sourceNames are the names of source images, in the proportion in which clients use them.
var sourceNames = []string{
	imageserver.JPEG, imageserver.JPEG, imageserver.JPEG, imageserver.JPEG, imageserver.JPEG, imageserver.JPEG,
	imageserver.PNG, imageserver.PNG, imageserver.PNG, imageserver.Slow, imageserver.Slow,
	imageserver.FlakyOnce, imageserver.FlakyOnce, imageserver.Moved,
	imageserver.Missing, imageserver.Unavailable, imageserver.Hanging, imageserver.Short, imageserver.Truncated,
	imageserver.Text, imageserver.Huge, imageserver.Reset,
}

// Abilities are what the API that is tested can do.
type Abilities struct{ Patch, Delete, Reprocess, Idempotency bool }

// apiUser is one user of the API, who does one thing at a time.
type apiUser struct {
	number  int
	user    int64
	apis    []string
	sources string
	can     Abilities
	random  *rand.Rand
	history *History
	client    *client.Client
	expectations []*Expectation
	created    int // products and pictures so far, for names
}

func newAPIUser(number int, seed uint64, apis []string, sources string, can Abilities, history *History) *apiUser {
	return &apiUser{
		number: number, apis: apis, sources: fmt.Sprintf("%s/%d/%d", sources, seed, number), can: can, history: history,
		random: rand.New(rand.NewPCG(seed, uint64(number)+1)), //nolint:gosec // it is to be repeatable
		client:   client.New("", client.Options{Timeout: clientTimeout}),
	}
}

// api is where the next request goes.
func (c *apiUser) api() string { return c.apis[c.random.IntN(len(c.apis))] }

// register makes the client's user.
func (c *apiUser) register(ctx context.Context) error {
	for try := 0; ; try++ {
		email := fmt.Sprintf("c%d.%d@example.com", c.number, try)
		user := map[string]string{"name": fmt.Sprintf("client %d", c.number), "email": email}
		a, err := c.client.Do(ctx, http.MethodPost, c.api()+"/users", user)
		c.history.record(c.number, "POST user", "", a, err)
		if err == nil && a.Status == http.StatusCreated {
			var made struct{ ID int64 }
			if err := json.Unmarshal(a.Body, &made); err != nil {
				return fmt.Errorf("read user: %w", err)
			}
			c.user = made.ID
			return nil
		}
		if !sleep(ctx, retryPause) {
			return fmt.Errorf("make user: %w", ctx.Err())
		}
	}
}

// work goes on until ctx ends. The request under way is not cut short: its outcome would be unknown for no reason.
func (c *apiUser) work(ctx context.Context) {
	whole := context.WithoutCancel(ctx)
	for sleep(ctx, time.Duration(c.random.IntN(maxThinkMillis))*time.Millisecond) {
		c.step(whole)
	}
}

// step does one thing.
func (c *apiUser) step(ctx context.Context) {
	dice := c.random.IntN(100)
	s := c.pick()
	switch {
	case s == nil || dice < 22:
		c.create(ctx)
	case dice < 30:
		c.list(ctx)
	case dice < 42 && c.can.Patch:
		c.patch(ctx, s)
	case dice < 47 && c.can.Delete:
		c.delete(ctx, s)
	case dice < 53 && c.can.Reprocess && len(s.images) > 0:
		c.reprocess(ctx, s)
	default:
		c.read(ctx, s)
	}
}

// pick is one of the client's products that it has not deleted, or nil.
func (c *apiUser) pick() *Expectation {
	for range 5 {
		if len(c.expectations) == 0 {
			return nil
		}
		if s := c.expectations[c.random.IntN(len(c.expectations))]; s.Accepted && !s.Deleted {
			return s
		}
	}
	return nil
}

// urls are new pictures' sources.
func (c *apiUser) urls() []string {
	urls := make([]string, 0, maxImages)
	for range c.random.IntN(maxImages + 1) {
		c.created++
		urls = append(urls, fmt.Sprintf("%s/%d/%s", c.sources, c.created, sourceNames[c.random.IntN(len(sourceNames))]))
	}
	return urls
}

func (c *apiUser) price() string {
	return fmt.Sprintf("%d.%02d", c.random.IntN(1000), c.random.IntN(100))
}

// create posts a product: with a key, and then again until its outcome is known, or without, and never again.
func (c *apiUser) create(ctx context.Context) {
	c.created++
	token := fmt.Sprintf("token-%d-%d", c.number, c.created)
	s := &Expectation{Token: token, UserID: c.user, Name: "thing " + token, Price: c.price(), Images: c.urls()}
	s.body = map[string]any{
		"user_id": s.UserID, "product_name": s.Name, "product_description": s.Token, "product_price": s.Price, "product_images": s.Images,
	}
	if c.can.Idempotency && c.random.IntN(3) > 0 {
		s.Key = "key-" + token
	}
	c.expectations = append(c.expectations, s)
	c.history.add(s)
	for try := 1; !c.post(ctx, s) && s.Key != "" && try < createTries; try++ {
		sleep(ctx, retryPause)
	}
}

// post sends a story's POST. It reports whether there is nothing more to try.
func (c *apiUser) post(ctx context.Context, s *Expectation) bool {
	var header []string
	if s.Key != "" {
		header = []string{"Idempotency-Key", s.Key}
	}
	a, err := c.client.Do(ctx, http.MethodPost, c.api()+"/products", s.body, header...)
	c.history.record(c.number, "POST", s.Token, a, err)
	switch {
	case err == nil && a.Status == http.StatusCreated:
		p, err := a.Product()
		if err != nil {
			c.history.addFinding("an answer can be read", fmt.Sprintf("POST of %s: %v", s.Token, err))
			return true
		}
		s.created(p, a.ETag())
		return true
	case err == nil && a.Status < http.StatusInternalServerError && a.Status != http.StatusConflict:
		c.history.addFinding("a request that is right is not refused", fmt.Sprintf("POST of %s: %d %s", s.Token, a.Status, a.Body))
		return true
	default:
		return false
	}
}

func (c *apiUser) read(ctx context.Context, s *Expectation) {
	a, err := c.client.Do(ctx, http.MethodGet, fmt.Sprintf("%s/products/%d", c.api(), s.ID), nil)
	c.history.record(c.number, "GET", s.Token, a, err)
	if err != nil || a.Status != http.StatusOK {
		return
	}
	p, err := a.Product()
	if err != nil || p.ID != s.ID || p.Description != s.Token {
		c.history.addFinding("a read answers with the product that was asked for", fmt.Sprintf("%s: %v, %s", s.Token, err, a.Body))
		return
	}
	s.observe(p, a.ETag())
}

func (c *apiUser) list(ctx context.Context) {
	a, err := c.client.Do(ctx, http.MethodGet, fmt.Sprintf("%s/products?user_id=%d&limit=10", c.api(), c.user), nil)
	c.history.record(c.number, "LIST", "", a, err)
}

// patch changes some of a product, half of the time only if nobody else has.
func (c *apiUser) patch(ctx context.Context, s *Expectation) {
	change, name, price, images := c.changes(s)
	var header []string
	if s.etag != "" && c.random.IntN(2) == 0 {
		header = []string{"If-Match", s.etag}
	}
	a, err := c.client.Do(ctx, http.MethodPatch, fmt.Sprintf("%s/products/%d", c.api(), s.ID), change, header...)
	c.history.record(c.number, "PATCH", s.Token, a, err)
	switch {
	case err == nil && a.Status == http.StatusOK:
		p, err := a.Product()
		if err != nil {
			c.history.addFinding("an answer can be read", fmt.Sprintf("PATCH of %s: %v", s.Token, err))
			return
		}
		s.Name, s.Price, s.Images = name, price, images
		s.observe(p, a.ETag())
	case outcomeUnknown(a, err):
		s.MaybeNames, s.MaybePrices = append(s.MaybeNames, name), append(s.MaybePrices, price)
		s.MaybeImages = append(s.MaybeImages, images)
	default:
		c.checkRejection("PATCH", s, a)
	}
}

// changes draws a merge-patch, and says what the product is with it.
func (c *apiUser) changes(s *Expectation) (change map[string]any, _, _ string, _ []string) {
	c.created++
	change = map[string]any{}
	name, price, images := s.Name, s.Price, s.Images
	if c.random.IntN(2) == 0 {
		name = fmt.Sprintf("thing %s, changed %d", s.Token, c.created)
		change["product_name"] = name
	}
	if c.random.IntN(2) == 0 {
		price = c.price()
		change["product_price"] = price
	}
	if c.random.IntN(2) == 0 || len(change) == 0 {
		images = c.urls()
		for _, url := range s.Images { // some stay, perhaps at another place
			if c.random.IntN(2) == 0 {
				images = append(images, url)
			}
		}
		c.random.Shuffle(len(images), func(i, j int) { images[i], images[j] = images[j], images[i] })
		change["product_images"] = images
	}
	return change, name, price, images
}

func (c *apiUser) delete(ctx context.Context, s *Expectation) {
	a, err := c.client.Do(ctx, http.MethodDelete, fmt.Sprintf("%s/products/%d", c.api(), s.ID), nil)
	c.history.record(c.number, "DELETE", s.Token, a, err)
	switch {
	case err == nil && a.Status == http.StatusNoContent:
		s.Deleted = true
	case err == nil && a.Status == http.StatusNotFound && s.MaybeDeleted:
		s.Deleted = true
	case outcomeUnknown(a, err):
		s.MaybeDeleted = true
	default:
		c.checkRejection("DELETE", s, a)
	}
}

// checkRejection looks at an answer that says that nothing was done. Somebody else's change and a server that is away are reasons;
// of a product that may be deleted, and of a picture that may have been dropped, nothing is known.
func (c *apiUser) checkRejection(what string, s *Expectation, a client.Response) {
	switch a.Status {
	case http.StatusPreconditionFailed, http.StatusServiceUnavailable:
		return
	case http.StatusNotFound:
		if s.MaybeDeleted || a.Code() == "image_not_found" {
			return
		}
	}
	c.history.addFinding("a request that is right is not refused", fmt.Sprintf("%s of %s: %d %s", what, s.Token, a.Status, a.Body))
}

func (c *apiUser) reprocess(ctx context.Context, s *Expectation) {
	url := fmt.Sprintf("%s/products/%d/images/%d/reprocess", c.api(), s.ID, s.images[c.random.IntN(len(s.images))])
	a, err := c.client.Do(ctx, http.MethodPost, url, nil)
	c.history.record(c.number, "REPROCESS", s.Token, a, err)
	if err == nil && a.Status >= http.StatusBadRequest && !outcomeUnknown(a, err) {
		c.checkRejection("REPROCESS", s, a)
	}
}

// resolve repeats the POSTs of unknown outcome that have a key, now that everything works.
func (c *apiUser) resolve(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, resolvePeriod)
	defer cancel()
	for _, s := range c.expectations {
		for s.Key != "" && !s.Accepted && !c.post(ctx, s) {
			if !sleep(ctx, retryPause) {
				c.history.addFinding("a request that is repeated with its key is answered", "POST of "+s.Token)
				return
			}
		}
		if s.Key != "" && s.Accepted && c.random.IntN(3) == 0 { // once more: nothing may come of it
			c.post(ctx, s)
		}
	}
}
