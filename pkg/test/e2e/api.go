package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// callLimit bounds one request, its body included: longer than the API works on one.
const callLimit = 15 * time.Second

// api is a client of Vitrine that never repeats a request.
type api struct {
	base string
	http *http.Client
}

// newAPI returns a client of the API at base. fresh: every request has a connection of its own.
func newAPI(base string, fresh bool) api {
	return api{base: strings.TrimRight(base, "/"), http: &http.Client{
		Timeout: callLimit,
		Transport: &http.Transport{
			DialContext:       (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			DisableKeepAlives: fresh, MaxIdleConnsPerHost: 32, IdleConnTimeout: 30 * time.Second,
		},
	}}
}

// product is what the proofs read of a product's JSON.
type product struct {
	ID        int64     `json:"id"`
	Status    string    `json:"image_status"`
	Version   int64     `json:"version"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	Images    []picture `json:"images"`
}

type picture struct {
	Status   string `json:"status"`
	Attempts int    `json:"attempts"`
	Error    *struct {
		Code string `json:"code"`
	} `json:"error"`
	Renditions []rendition `json:"renditions"`
}

type rendition struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// call sends a request and decodes the answer, which has to have status want.
func (a api) call(ctx context.Context, method, path string, body any, want int, into any) error {
	var send io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, send)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	text, err := a.answer(req, want)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// answer sends req and returns the body of the answer.
func (a api) answer(req *http.Request, want int) ([]byte, error) {
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: read answer: %w", req.Method, req.URL, err)
	}
	if resp.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s: %.200s", req.Method, req.URL, resp.Status, text)
	}
	return text, nil
}

// user adds a user and returns its id.
func (a api) user(ctx context.Context, now time.Time) (int64, error) {
	var made struct {
		ID int64 `json:"id"`
	}
	body := map[string]any{"name": "E2E", "email": fmt.Sprintf("e2e-%d@example.com", now.UnixNano())}
	err := a.call(ctx, http.MethodPost, "/users", body, http.StatusCreated, &made)
	return made.ID, err
}

// post adds a product with pictures at sources.
func (a api) post(ctx context.Context, user int64, name string, sources []string) (product, error) {
	body := map[string]any{"user_id": user, "product_name": name, "product_price": "9.99", "product_images": sources}
	var p product
	err := a.call(ctx, http.MethodPost, "/products", body, http.StatusCreated, &p)
	return p, err
}

// product reads a product.
func (a api) product(ctx context.Context, id int64) (product, error) {
	var p product
	err := a.call(ctx, http.MethodGet, fmt.Sprintf("/products/%d", id), nil, http.StatusOK, &p)
	return p, err
}

// download fetches every URL that stands anywhere in the product's JSON, as it stands there, and returns how many there are.
func (a api) download(ctx context.Context, id int64) (int, error) {
	var whole any
	if err := a.call(ctx, http.MethodGet, fmt.Sprintf("/products/%d", id), nil, http.StatusOK, &whole); err != nil {
		return 0, err
	}
	urls := urlsIn(whole)
	for _, url := range urls {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return 0, err
		}
		text, err := a.answer(req, http.StatusOK)
		if err != nil {
			return 0, err
		}
		if kind := http.DetectContentType(text); !strings.HasPrefix(kind, "image/") {
			return 0, fmt.Errorf("GET %s: it is %s, no picture", url, kind)
		}
	}
	return len(urls), nil
}

// urlsIn returns every text in decoded JSON that is an HTTP URL.
func urlsIn(value any) []string {
	var urls []string
	switch v := value.(type) {
	case string:
		if strings.HasPrefix(v, "http://") || strings.HasPrefix(v, "https://") {
			urls = append(urls, v)
		}
	case []any:
		for _, element := range v {
			urls = append(urls, urlsIn(element)...)
		}
	case map[string]any:
		for _, element := range v {
			urls = append(urls, urlsIn(element)...)
		}
	}
	return urls
}
