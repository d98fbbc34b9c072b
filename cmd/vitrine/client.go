package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/fault"
)

const (
	pollInterval = 200 * time.Millisecond
	maxResponse  = 8 << 20 // bytes; 20 images of 128 renditions are below 1 MiB
)

// apiClient is a client of the HTTP API.
type apiClient struct {
	base string // its URL, without the last slash
	web  *http.Client
}

// product has the fields of a product that the commands read.
type product struct {
	ID          int64          `json:"id"`
	ImageStatus string         `json:"image_status"`
	Sources     []string       `json:"product_images"`
	Compressed  []string       `json:"compressed_product_images"`
	Images      []productImage `json:"images"`
}

type productImage struct {
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

// addProduct adds a user's product with one image for each of the URLs.
func (a apiClient) addProduct(ctx context.Context, user int64, name, about string, images []string) (product, error) {
	var p product
	err := a.call(ctx, http.MethodPost, "/products", map[string]any{
		"user_id": user, "product_name": name, "product_description": about, "product_images": images, "product_price": "12.50",
	}, &p)
	return p, err
}

// isWebURL reports whether url begins as one of HTTP.
func isWebURL(url string) bool {
	return strings.HasPrefix(url, "http://") || strings.HasPrefix(url, "https://")
}

// awaitImages reads a product until none of its images is pending. It calls changed for the first status of each image and
// for every later change, and waiting with the error of each failed attempt to read.
func (a apiClient) awaitImages(
	ctx context.Context, id int64, changed func(i int, p product), waiting func(error),
) (p product, err error) {
	seen := map[int]string{}
	read := func(ctx context.Context) error {
		var next product
		err := a.call(ctx, http.MethodGet, fmt.Sprintf("/products/%d", id), nil, &next)
		if err == nil {
			p = next
		}
		return err
	}
	for {
		if err := retry(ctx, read, waiting); err != nil {
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
		if !backoff.Sleep(ctx, pollInterval) {
			return p, fmt.Errorf("the images are still pending: %w", ctx.Err())
		}
	}
}

// call sends in as JSON, unless it is nil, and decodes the response into out. A status other than 2xx is an error that
// quotes the response; fault.Unavailable if a repetition may succeed.
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
		return temporary(ctx, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return temporary(ctx, err)
	}
	if resp.StatusCode/100 != 2 {
		err := fmt.Errorf("%s %s: %s: %s", method, req.URL, resp.Status, bytes.TrimSpace(text[:min(len(text), 2000)]))
		if slices.Contains(temporaryStatuses, resp.StatusCode) {
			return temporary(ctx, err)
		}
		return err
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s %s: read the response: %w", method, req.URL, err)
	}
	return nil
}

// temporaryStatuses are the statuses, of the API or of a proxy, after which a repetition may succeed.
var temporaryStatuses = []int{
	http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
}

// temporary returns err as fault.Unavailable, unless ctx has ended.
func temporary(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fault.Wrap(err, fault.Unavailable, "api_unavailable", "the API does not answer")
}
