// Package client calls Vitrine's HTTP API for tests and harnesses: one request per call, and the unmodified response. It
// does not retry. net/http may resend a GET when a kept connection is found closed; [Options.FreshConns] prevents that.
//
// Only test code imports it. The shipped client is in cmd/vitrine.
package client

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

// DefaultTimeout is the bound of a request that [Options.Timeout] does not give.
const DefaultTimeout = 30 * time.Second

// Options are the options of a [Client]. The zero value is ready to use.
type Options struct {
	Timeout    time.Duration // of one request, to the end of the response body; 0 is [DefaultTimeout]
	FreshConns bool          // each request opens a new connection
}

// Client sends requests to one API. It may be used concurrently.
type Client struct {
	base string
	http *http.Client
}

// New returns a client of the API at base, a URL such as http://127.0.0.1:8080. With an empty base every request needs a
// whole URL.
func New(base string, o Options) *Client {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	return &Client{base: strings.TrimRight(base, "/"), http: &http.Client{
		Timeout: o.Timeout,
		Transport: &http.Transport{
			DialContext:       (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			DisableKeepAlives: o.FreshConns, MaxIdleConnsPerHost: 32, IdleConnTimeout: 30 * time.Second,
		},
	}}
}

// Close closes the connections that are kept.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Response is a response of the API. The zero value means that there was none.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// ETag returns the header ETag, or "".
func (r Response) ETag() string { return r.Header.Get("ETag") }

// Code returns the code of a problem document, or "" if the response is not an error with a code.
func (r Response) Code() string {
	var problem struct{ Code string }
	if r.Status < http.StatusBadRequest || json.Unmarshal(r.Body, &problem) != nil {
		return ""
	}
	return problem.Code
}

// Product decodes the body as a product. A body without a product's id is an error.
func (r Response) Product() (Product, error) {
	var p Product
	if err := json.Unmarshal(r.Body, &p); err != nil {
		return p, fmt.Errorf("decode product: %w", err)
	}
	if p.ID == 0 {
		return p, fmt.Errorf("decode product: it has no id: %.200s", r.Body)
	}
	return p, nil
}

// Do sends a request and returns the response with any status. The target is a path, which begins with a slash, or a
// whole URL. The body is nil or "" for none, a string that is sent as it is, or a value that is sent as JSON. The header is
// a list of names, each followed by its value.
//
// An error means that no complete response has arrived. The API may have carried out the request.
func (c *Client) Do(ctx context.Context, method, target string, body any, header ...string) (Response, error) {
	req, err := c.request(ctx, method, target, body)
	if err != nil {
		return Response{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return Response{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return Response{}, fmt.Errorf("%s %s: read response: %w", method, req.URL, err)
	}
	return Response{Status: resp.StatusCode, Header: resp.Header, Body: text}, nil
}

func (c *Client) request(ctx context.Context, method, target string, body any) (*http.Request, error) {
	if strings.HasPrefix(target, "/") {
		target = c.base + target
	}
	text, ok := body.(string)
	if !ok && body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("%s %s: encode body: %w", method, target, err)
		}
		text = string(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("create request: %w", err)
	}
	switch {
	case text == "":
	case method == http.MethodPatch:
		req.Header.Set("Content-Type", "application/merge-patch+json")
	default:
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// Call is [Client.Do] for a response that must have the status want. It decodes the body into the value that into points
// to, unless into is nil. Another status is an error that quotes the response.
func (c *Client) Call(ctx context.Context, method, target string, body any, want int, into any) error {
	r, err := c.Do(ctx, method, target, body)
	if err != nil {
		return err
	}
	if r.Status != want {
		return fmt.Errorf("%s %s: %d %s: %.200s", method, target, r.Status, http.StatusText(r.Status), bytes.TrimSpace(r.Body))
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(r.Body, into); err != nil {
		return fmt.Errorf("%s %s: decode response: %w", method, target, err)
	}
	return nil
}

// CreateUser creates a user and returns its id. The email has to be unused.
func (c *Client) CreateUser(ctx context.Context, name, email string) (int64, error) {
	var user struct {
		ID int64 `json:"id"`
	}
	err := c.Call(ctx, http.MethodPost, "/users", map[string]string{"name": name, "email": email}, http.StatusCreated, &user)
	return user.ID, err
}

// CreateProduct creates a product, without an Idempotency-Key.
func (c *Client) CreateProduct(ctx context.Context, n NewProduct) (Product, error) {
	var p Product
	err := c.Call(ctx, http.MethodPost, "/products", n, http.StatusCreated, &p)
	return p, err
}

// Product reads a product. One that does not exist is an error.
func (c *Client) Product(ctx context.Context, id int64) (Product, error) {
	var p Product
	err := c.Call(ctx, http.MethodGet, fmt.Sprintf("/products/%d", id), nil, http.StatusOK, &p)
	return p, err
}
