package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Answer is what the API said.
type Answer struct {
	Status   int // 0: nothing came back
	Code     string
	ETag     string
	Replayed bool
	Body     []byte
}

// caller speaks HTTP with an API.
type caller struct {
	http *http.Client
}

// newCaller returns a caller that waits so long for an answer.
func newCaller(patience time.Duration) *caller {
	return &caller{http: &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}
}

func (c *caller) close() { c.http.CloseIdleConnections() }

// do sends a request. An error is that nothing came back: whatever was asked for may have happened.
func (c *caller) do(ctx context.Context, method, url string, body any, header ...string) (Answer, error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return Answer{}, fmt.Errorf("encode request: %w", err)
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err != nil {
		return Answer{}, fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{
		Status: resp.StatusCode, ETag: resp.Header.Get("ETag"), Body: text,
		Replayed: resp.Header.Get("Idempotent-Replayed") == "true",
	}
	if a.Status >= http.StatusBadRequest {
		var problem struct{ Code string }
		_ = json.Unmarshal(text, &problem) // a problem without a code has none
		a.Code = problem.Code
	}
	return a, nil
}

// unknown says whether what was asked for may or may not have happened.
func unknown(a Answer, err error) bool {
	return err != nil || a.Status >= http.StatusInternalServerError && !surelyNot(a.Code)
}

// surelyNot are the refusals that promise that nothing has been done.
func surelyNot(code string) bool {
	switch code {
	case "database_unavailable", "shutting_down", "overloaded":
		return true
	default:
		return false
	}
}

// ProductJSON is a product as clients read it.
type ProductJSON struct {
	ID          int64       `json:"id"`
	UserID      int64       `json:"user_id"`
	Name        string      `json:"product_name"`
	Description string      `json:"product_description"`
	Price       string      `json:"product_price"`
	URLs        []string    `json:"product_images"`
	Compressed  []string    `json:"compressed_product_images"`
	Images      []ImageJSON `json:"images"`
	ImageStatus string      `json:"image_status"`
	Version     int64       `json:"version"`
}

// ImageJSON is a picture as clients read it.
type ImageJSON struct {
	ID         int64  `json:"id"`
	SourceURL  string `json:"source_url"`
	Status     string `json:"status"`
	Error      *struct{ Code string }
	Renditions []struct {
		URL string `json:"url"`
	} `json:"renditions"`
}

// product reads an answer's body as a product.
func (a Answer) product() (ProductJSON, error) {
	var p ProductJSON
	if err := json.Unmarshal(a.Body, &p); err != nil {
		return p, fmt.Errorf("read product: %w", err)
	}
	if p.ID == 0 {
		return p, errors.New("read product: it has no id")
	}
	return p, nil
}
