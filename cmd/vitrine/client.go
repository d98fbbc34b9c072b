package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/fault"
)

const (
	pollEvery = 200 * time.Millisecond
	maxAnswer = 8 << 20 // bytes; twenty pictures in 128 renditions each are less than one
)

// apiClient asks the HTTP API as any client would.
type apiClient struct {
	base string // its URL, without the last slash
	web  *http.Client
}

// product is what is read of a product.
type product struct {
	ID          int64     `json:"id"`
	ImageStatus string    `json:"image_status"`
	Sources     []string  `json:"product_images"`
	Compressed  []string  `json:"compressed_product_images"`
	Images      []picture `json:"images"`
}

type picture struct {
	SourceURL string `json:"source_url"`
	Status    string `json:"status"`
	Error     *struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	} `json:"error"`
	Width      int         `json:"width"`
	Height     int         `json:"height"`
	Renditions []rendition `json:"renditions"`
	Dropped    []dropped   `json:"dropped"`
}

type rendition struct {
	Name   string `json:"name"`
	Format string `json:"format"`
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Bytes  int64  `json:"bytes"`
	URL    string `json:"url"`
}

type dropped struct {
	Name   string `json:"name"`
	Format string `json:"format"`
	Reason string `json:"reason"`
}

// addUser adds a user and returns the id.
func (a apiClient) addUser(ctx context.Context, name, email string) (int64, error) {
	var user struct {
		ID int64 `json:"id"`
	}
	err := a.call(ctx, http.MethodPost, "/users", map[string]string{"name": name, "email": email}, &user)
	return user.ID, err
}

// addProduct adds a user's product with the pictures that are at these URLs.
func (a apiClient) addProduct(ctx context.Context, user int64, name, about string, pictures []string) (product, error) {
	var p product
	err := a.call(ctx, http.MethodPost, "/products", map[string]any{
		"user_id": user, "product_name": name, "product_description": about, "product_images": pictures, "product_price": "12.50",
	}, &p)
	return p, err
}

// product reads a product.
func (a apiClient) product(ctx context.Context, id int64) (product, error) {
	var p product
	err := a.call(ctx, http.MethodGet, fmt.Sprintf("/products/%d", id), nil, &p)
	return p, err
}

// settled reads a product until none of its pictures is pending. changed hears of each picture's first status and of every
// other one after it; waiting hears why a reading was not to be had.
func (a apiClient) settled(
	ctx context.Context, id int64, changed func(i int, p product), waiting func(error),
) (p product, err error) {
	seen := map[int]string{}
	read := func(ctx context.Context) error {
		next, err := a.product(ctx, id)
		if err == nil {
			p = next
		}
		return err
	}
	for {
		if err := insist(ctx, read, waiting); err != nil {
			return p, err
		}
		for i, img := range p.Images {
			if seen[i] != img.Status {
				seen[i] = img.Status
				changed(i, p)
			}
		}
		if p.ImageStatus != "pending" {
			return p, nil
		}
		if !backoff.Sleep(ctx, pollEvery) {
			return p, fmt.Errorf("the pictures are still pending: %w", ctx.Err())
		}
	}
}

// call sends in as JSON, unless it is nil, and decodes the answer into out. An answer other than 2xx is an error that quotes
// it; fault.Unavailable if the same may well succeed a little later.
func (a apiClient) call(ctx context.Context, method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, &body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.web.Do(req)
	if err != nil {
		return notNow(ctx, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return notNow(ctx, err)
	}
	if resp.StatusCode/100 != 2 {
		err := fmt.Errorf("%s %s: %s: %s", method, req.URL, resp.Status, bytes.TrimSpace(text[:min(len(text), 2000)]))
		if slices.Contains(passing, resp.StatusCode) {
			return notNow(ctx, err)
		}
		return err
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, req.URL, err)
	}
	return nil
}

// passing are the answers of a server, or of what stands before it, that will soon answer otherwise.
var passing = []int{
	http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
}

// notNow marks an error that may pass, unless it is the end of ctx.
func notNow(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fault.Wrap(err, fault.Unavailable, "api_unavailable", "the API does not answer")
}
