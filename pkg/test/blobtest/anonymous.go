package blobtest

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// anonymous reads and writes without keys, as a browser with an object's URL and as an attacker.
func (s suite) anonymous(t *testing.T) {
	b, cfg := s.create(t)
	put(t, b, "p/1/card.webp", "image/webp", []byte("some data"))
	base := strings.TrimSuffix(cfg.Public(), "/")

	resp, body := request(t, http.MethodGet, base+"/p/1/card.webp", "")
	if resp.StatusCode != http.StatusOK || body != "some data" {
		t.Fatalf("get: got %s %q, want the object", resp.Status, body)
	}
	for name, want := range map[string]string{
		"Content-Type": "image/webp", "Cache-Control": "public, max-age=31536000, immutable", "Content-Length": "9",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	resp, body = request(t, http.MethodHead, base+"/p/1/card.webp?v=2", "")
	if resp.StatusCode != http.StatusOK || body != "" || resp.Header.Get("Cache-Control") == "" {
		t.Errorf("head: got %s, %q and headers %v", resp.Status, body, resp.Header)
	}
	// A store may answer 403 for a missing object to a client that has no permission to list objects.
	if resp, _ := request(t, http.MethodGet, base+"/p/1/other.webp", ""); resp.StatusCode != http.StatusNotFound &&
		resp.StatusCode != http.StatusForbidden {
		t.Errorf("get of a missing object: got %s", resp.Status)
	}
	for _, attempt := range []struct{ what, method, url string }{
		{"list", http.MethodGet, base}, {"list v2", http.MethodGet, base + "?list-type=2"},
		{"list buckets", http.MethodGet, strings.TrimSuffix(base, "/"+cfg.Bucket) + "/"},
		{"overwrite", http.MethodPut, base + "/p/1/card.webp"}, {"delete", http.MethodDelete, base + "/p/1/card.webp"},
		{"delete many", http.MethodPost, base + "?delete"}, {"set policy", http.MethodPut, base + "?policy"},
		{"delete bucket", http.MethodDelete, base}, {"create bucket", http.MethodPut, base + "2"},
	} {
		resp, _ := request(t, attempt.method, attempt.url, "x")
		// MinIO redirects an anonymous request for the list of buckets to its console.
		if resp.StatusCode < 300 {
			t.Errorf("%s without keys: got %s, want an error", attempt.what, resp.Status)
		}
	}
	if got, _ := get(t, b, "p/1/card.webp"); string(got) != "some data" {
		t.Errorf("the object was changed to %q", got)
	}
}

// request sends a request on a connection of its own, without following redirects, and returns the answer and its body.
func request(t testing.TB, method, url, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp, string(got)
}
