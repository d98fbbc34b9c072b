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

// Parameters of the clients.
const (
	clients        = 4
	floodUser      = clients         // number of the user that floods
	abuseUser      = clients + 1     // number of the user beside abused lists; it has no images
	hosts          = clients + 1     // of sources
	clientTimeout  = 4 * time.Second // for a response
	maxThinkMillis = 400             // longest pause between two requests, in milliseconds
	maxImages      = 3
	createTries    = 5
	retryPause     = 300 * time.Millisecond
	resolvePeriod  = 60 * time.Second // for repeating requests of unknown outcome after the faults
)

// sourceNames are the names of source images. Clients choose among them with equal probability.
var sourceNames = []string{
	imageserver.JPEG, imageserver.JPEG, imageserver.JPEG, imageserver.JPEG, imageserver.JPEG, imageserver.JPEG,
	imageserver.PNG, imageserver.PNG, imageserver.PNG, imageserver.Slow, imageserver.Slow,
	imageserver.FlakyOnce, imageserver.FlakyOnce, imageserver.Moved,
	imageserver.Missing, imageserver.Unavailable, imageserver.Hanging, imageserver.Short, imageserver.Truncated,
	imageserver.Text, imageserver.Huge, imageserver.Reset,
}

// apiUser is a client of the API. It sends one request at a time.
type apiUser struct {
	number       int
	user         int64
	apis         []string
	sources      string
	random       *rand.Rand
	history      *History
	client       *client.Client
	expectations []*Expectation
	created      int // number of names used
}

func newAPIUser(number int, seed uint64, apis []string, sources string, history *History) *apiUser {
	return &apiUser{
		number: number, apis: apis, sources: fmt.Sprintf("%s/%d/%d", sources, seed, number), history: history,
		random: rand.New(rand.NewPCG(seed, uint64(number)+1)), //nolint:gosec // must be reproducible
		client: client.New("", client.Options{Timeout: clientTimeout}),
	}
}

// api returns the URL of the api process for the next request.
func (c *apiUser) api() string { return c.apis[c.random.IntN(len(c.apis))] }

// register creates the client's user. It retries until it succeeds or ctx ends.
func (c *apiUser) register(ctx context.Context) error {
	for try := 0; ; try++ {
		email := fmt.Sprintf("c%d.%d@example.com", c.number, try)
		user := map[string]string{"name": fmt.Sprintf("client %d", c.number), "email": email}
		a, err := c.client.Do(ctx, http.MethodPost, c.api()+"/users", user)
		c.history.record(c.number, "POST user", "", a, err)
		if err == nil && a.Status == http.StatusCreated {
			var created struct{ ID int64 }
			if err := json.Unmarshal(a.Body, &created); err != nil {
				return fmt.Errorf("read user: %w", err)
			}
			c.user = created.ID
			return nil
		}
		if !sleep(ctx, retryPause) {
			return fmt.Errorf("create user: %w", ctx.Err())
		}
	}
}

// work sends requests until ctx ends. It does not cancel the last request, whose outcome would then be unknown.
func (c *apiUser) work(ctx context.Context) {
	uncancelled := context.WithoutCancel(ctx)
	for sleep(ctx, time.Duration(c.random.IntN(maxThinkMillis))*time.Millisecond) {
		c.step(uncancelled)
	}
}

// step sends one random request.
func (c *apiUser) step(ctx context.Context) {
	dice := c.random.IntN(100)
	s := c.pick()
	switch {
	case s == nil || dice < 22:
		c.create(ctx)
	case dice < 30:
		c.list(ctx)
	case dice < 42:
		c.patch(ctx, s)
	case dice < 47:
		c.delete(ctx, s)
	case dice < 53 && len(s.images) > 0:
		c.reprocess(ctx, s)
	default:
		c.read(ctx, s)
	}
}

// pick returns a random product of the client that is not deleted, or nil.
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

// urls returns 0 to maxImages new source URLs.
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

// create posts a product. With an idempotency key it repeats the request until the outcome is known; without one it does
// not.
func (c *apiUser) create(ctx context.Context) {
	c.created++
	token := fmt.Sprintf("token-%d-%d", c.number, c.created)
	s := c.expect(token, c.urls())
	if c.random.IntN(3) > 0 {
		s.Key = "key-" + token
	}
	for try := 1; !c.post(ctx, s) && s.Key != "" && try < createTries; try++ {
		sleep(ctx, retryPause)
	}
}

// expect adds a product with a new token, which a POST is about to create.
func (c *apiUser) expect(token string, images []string) *Expectation {
	s := &Expectation{Token: token, UserID: c.user, Name: "thing " + token, Price: c.price(), Images: images}
	s.body = map[string]any{
		"user_id": s.UserID, "product_name": s.Name, "product_description": s.Token, "product_price": s.Price, "product_images": s.Images,
	}
	c.expectations = append(c.expectations, s)
	c.history.add(s)
	return s
}

// post sends the POST of a product. It returns false if the request should be repeated.
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
			c.history.addFinding("responses can be decoded", fmt.Sprintf("POST of %s: %v", s.Token, err))
			return true
		}
		s.created(p, a.ETag())
		return true
	case err == nil && a.Status == http.StatusTooManyRequests:
		return false
	case err == nil && a.Status < http.StatusInternalServerError && a.Status != http.StatusConflict:
		c.history.addFinding("valid requests are not rejected", fmt.Sprintf("POST of %s: %d %s", s.Token, a.Status, a.Body))
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
		c.history.addFinding("GET returns the requested product", fmt.Sprintf("%s: %v, %s", s.Token, err, a.Body))
		return
	}
	s.observe(p, a.ETag())
}

func (c *apiUser) list(ctx context.Context) {
	a, err := c.client.Do(ctx, http.MethodGet, fmt.Sprintf("%s/products?user_id=%d&limit=10", c.api(), c.user), nil)
	c.history.record(c.number, "LIST", "", a, err)
}

// patch changes a product. It sends If-Match in half of the requests.
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
			c.history.addFinding("responses can be decoded", fmt.Sprintf("PATCH of %s: %v", s.Token, err))
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

// changes returns a random merge patch, and the product's name, price and image URLs after it.
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
		for _, url := range s.Images { // some images stay, possibly at another position
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

// checkRejection checks the response to a request that had no effect. Valid reasons are a failed precondition, an
// unavailable server, and a missing product or image whose deletion the client cannot rule out.
func (c *apiUser) checkRejection(request string, s *Expectation, a client.Response) {
	switch a.Status {
	case http.StatusPreconditionFailed, http.StatusServiceUnavailable:
		return
	case http.StatusNotFound:
		if s.MaybeDeleted || a.Code() == "image_not_found" {
			return
		}
	}
	c.history.addFinding("valid requests are not rejected", fmt.Sprintf("%s of %s: %d %s", request, s.Token, a.Status, a.Body))
}

func (c *apiUser) reprocess(ctx context.Context, s *Expectation) {
	url := fmt.Sprintf("%s/products/%d/images/%d/reprocess", c.api(), s.ID, s.images[c.random.IntN(len(s.images))])
	a, err := c.client.Do(ctx, http.MethodPost, url, nil)
	c.history.record(c.number, "REPROCESS", s.Token, a, err)
	if err == nil && a.Status >= http.StatusBadRequest && !outcomeUnknown(a, err) {
		c.checkRejection("REPROCESS", s, a)
	}
}

// resolve repeats the POSTs of unknown outcome that have a key. It runs after the faults have ended.
func (c *apiUser) resolve(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, resolvePeriod)
	defer cancel()
	for _, s := range c.expectations {
		for s.Key != "" && !s.Accepted && !c.post(ctx, s) {
			if !sleep(ctx, retryPause) {
				c.history.addFinding("requests repeated with their key succeed", "POST of "+s.Token)
				return
			}
		}
		if s.Key != "" && s.Accepted && c.random.IntN(3) == 0 { // a replay must not create a second product
			c.post(ctx, s)
		}
	}
}
