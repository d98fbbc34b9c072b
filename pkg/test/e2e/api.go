package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"vitrine.io/pkg/test/client"
)

// callLimit is the timeout of a request including its body. It is longer than the API's own timeout.
const callLimit = 15 * time.Second

// newAPI returns a client of the API at base. If fresh is set, every request uses a new connection.
func newAPI(base string, fresh bool) *client.Client {
	return client.New(base, client.Options{Timeout: callLimit, FreshConns: fresh})
}

// downloadAll downloads every URL in the product's JSON and returns their number. Each must be an image.
func downloadAll(ctx context.Context, api *client.Client, id int64) (int, error) {
	var whole any
	if err := api.Call(ctx, http.MethodGet, fmt.Sprintf("/products/%d", id), nil, http.StatusOK, &whole); err != nil {
		return 0, err
	}
	urls := urlsIn(whole)
	for _, url := range urls {
		got, err := api.Do(ctx, http.MethodGet, url, nil)
		if err != nil {
			return 0, err
		}
		if got.Status != http.StatusOK {
			return 0, fmt.Errorf("GET %s: %d %s: %.200s", url, got.Status, http.StatusText(got.Status), got.Body)
		}
		if kind := http.DetectContentType(got.Body); !strings.HasPrefix(kind, "image/") {
			return 0, fmt.Errorf("GET %s: got %s, not an image", url, kind)
		}
	}
	return len(urls), nil
}

// urlsIn returns every string in decoded JSON that is an HTTP URL.
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
