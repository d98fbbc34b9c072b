package client_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/test/client"
)

// serve returns a client of a server with a handler.
func serve(t *testing.T, handler http.HandlerFunc) *client.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c := client.New(server.URL+"/", client.Options{Timeout: 5 * time.Second})
	t.Cleanup(c.Close)
	return c
}

// echo answers with a description of the request.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("ETag", `"1"`)
	fmt.Fprintf(w, "%s %s %s [%s] %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"), r.Header.Get("If-Match"), body)
}

func TestDo(t *testing.T) {
	t.Parallel()
	c := serve(t, echo)
	for name, row := range map[string]struct {
		method string
		body   any
		header []string
		want   string
	}{
		"no_body":            {http.MethodGet, nil, nil, "GET /x  [] "},
		"empty_text":         {http.MethodPost, "", nil, "POST /x  [] "},
		"text_is_sent_as_is": {http.MethodPost, `{"a": 1}`, nil, `POST /x application/json [] {"a": 1}`},
		"value_is_json":      {http.MethodPost, map[string]int{"a": 1}, nil, `POST /x application/json [] {"a":1}`},
		"patch_is_a_merge":   {http.MethodPatch, "{}", nil, "PATCH /x application/merge-patch+json [] {}"},
		"header_overrides": {http.MethodPatch, "{}", []string{"Content-Type", "application/json", "If-Match", "v"},
			"PATCH /x application/json [v] {}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := c.Do(t.Context(), row.method, "/x", row.body, row.header...)
			if err != nil || got.Status != http.StatusOK || string(got.Body) != row.want || got.ETag() != `"1"` {
				t.Errorf("got %d %s, %v; want %s", got.Status, got.Body, err, row.want)
			}
		})
	}
	t.Run("errors", func(t *testing.T) {
		t.Parallel()
		for _, target := range []string{"http://127.0.0.1:1/", ":"} {
			if got, err := c.Do(t.Context(), http.MethodGet, target, nil); err == nil || got.Status != 0 || got.ETag() != "" {
				t.Errorf("%s: got %+v, %v", target, got, err)
			}
		}
		if _, err := c.Do(t.Context(), http.MethodPost, "/x", func() {}); err == nil {
			t.Error("a body that JSON cannot represent is no error")
		}
	})
	t.Run("incomplete_response_is_an_error", func(t *testing.T) {
		t.Parallel()
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "cut")
		})
		if got, err := c.Do(t.Context(), http.MethodGet, "/", nil); err == nil || got.Status != 0 {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestTypedCalls(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.Method + " " + r.URL.Path {
		case "POST /users":
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"id": 9}`)
		case "POST /products":
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, `{"id": %d, "image_status": "pending"}`, len(body))
		case "GET /products/4":
			fmt.Fprint(w, `{"id": 4, "image_status": "ready", "images": [{"error": {"code": "corrupt"}}, {}]}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"code": "product_not_found"}`)
		}
	})
	if id, err := c.CreateUser(t.Context(), "Ada", "ada@example.com"); err != nil || id != 9 {
		t.Errorf("got user %d, %v", id, err)
	}
	n := client.NewProduct{UserID: 9, Name: "Chair", Price: "1", Sources: []string{}}
	if p, err := c.CreateProduct(t.Context(), n); err != nil || p.Settled() || p.ID == 0 {
		t.Errorf("got %+v, %v", p, err)
	}
	p, err := c.Product(t.Context(), 4)
	if err != nil || !p.Settled() || p.Images[0].ErrorCode() != "corrupt" || p.Images[1].ErrorCode() != "" {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, err := c.Product(t.Context(), 5); err == nil || !strings.Contains(err.Error(), "GET /products/5: 404 Not Found") {
		t.Errorf("got %v", err)
	}
	if err := c.Call(t.Context(), http.MethodGet, "/products/5", nil, http.StatusNotFound, nil); err != nil {
		t.Error(err)
	}
}

func TestResponse(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		response client.Response
		code     string
		id       int64
	}{
		"problem":              {client.Response{Status: 404, Body: []byte(`{"code":"product_not_found"}`)}, "product_not_found", 0},
		"problem_without_code": {client.Response{Status: 502, Body: []byte("bad gateway")}, "", 0},
		"product":              {client.Response{Status: 200, Body: []byte(`{"id":3,"code":"x"}`)}, "", 3},
		"nothing":              {client.Response{}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := row.response.Product()
			if got := row.response.Code(); got != row.code || p.ID != row.id || (err == nil) != (row.id != 0) {
				t.Errorf("got code %q, product %d, %v", got, p.ID, err)
			}
		})
	}
}
