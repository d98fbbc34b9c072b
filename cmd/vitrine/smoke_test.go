package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vitrine.io/pkg/test/port"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeShop is an API with one product, and its bucket.
type fakeShop struct {
	*httptest.Server
	mu      sync.Mutex
	reads   int
	refuse  int                       // requests that get 503 before the first success
	pending int                       // reads of the product before it is ready
	post    int                       // status of POST /products, 201 if 0
	edit    func(p *product)          // changes the final product
	serve   func(http.ResponseWriter) // writes the response to a request of 1/thumb.jpeg
	files   []string                  // paths that were requested
}

func newFakeShop(t *testing.T) *fakeShop {
	t.Helper()
	s := &fakeShop{}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// file returns an image file of w x h pixels.
func file(format string, w, h int) []byte {
	var b bytes.Buffer
	m := image.NewGray(image.Rect(0, 0, w, h))
	switch format {
	case "jpeg":
		_ = jpeg.Encode(&b, m, nil)
	case "png":
		_ = png.Encode(&b, m)
	case "avif":
		b.WriteString("\x00\x00\x00\x1cftypavif\x00\x00\x00\x00")
	}
	return b.Bytes()
}

func (s *fakeShop) ready() product {
	p := product{ID: 7, ImageStatus: "ready", Sources: []string{"http://src/1.jpg", "http://src/2.jpg"}}
	for i, source := range p.Sources {
		img := productImage{SourceURL: source, Status: "ready", Width: 40, Height: 30}
		for _, format := range []string{"jpeg", "png", "avif"} {
			img.Renditions = append(img.Renditions, rendition{
				Name: "thumb", Format: format, Width: 20, Height: 15, Bytes: int64(len(file(format, 20, 15))),
				URL: fmt.Sprintf("%s/media/%d/thumb.%s", s.URL, i, format),
			})
		}
		p.Images = append(p.Images, img)
		p.Compressed = append(p.Compressed, img.Renditions[0].URL)
	}
	return p
}

func (s *fakeShop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse > 0 {
		s.refuse--
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	answer := func(status int, v any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	path, isFile := strings.CutPrefix(r.URL.Path, "/media/")
	switch {
	case isFile:
		s.files = append(s.files, path)
		if s.serve != nil && path == "1/thumb.jpeg" {
			s.serve(w)
			return
		}
		_, format, _ := strings.Cut(path, ".")
		w.Header().Set("Content-Type", "image/"+format)
		_, _ = w.Write(file(format, 20, 15))
	case r.Method == http.MethodPost && r.URL.Path == "/users":
		answer(http.StatusCreated, map[string]int{"id": 3})
	case r.Method == http.MethodPost && r.URL.Path == "/products":
		answer(max(s.post, http.StatusCreated), product{ID: 7, ImageStatus: "pending"})
	case r.URL.Path == "/products/7":
		p := s.ready()
		if s.reads++; s.reads <= s.pending {
			p.ImageStatus, p.Images[1].Status = "pending", "pending"
		} else if s.edit != nil {
			s.edit(&p)
		}
		answer(http.StatusOK, p)
	default:
		http.NotFound(w, r)
	}
}

// smoke runs vitrine smoke on the fake shop.
func (s *fakeShop) smoke(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), append([]string{"smoke", "--api", s.URL + "/", "--source", "http://src/1.jpg", "--source",
		"http://src/2.jpg", "--timeout", "60s"}, args...), nil, &out, io.Discard)
	return out.String(), err
}

func TestSmoke(t *testing.T) {
	t.Parallel()
	t.Run("complete_product", testSmokeCompleteProduct)
	t.Run("rewrite", testSmokeRewrite)
	t.Run("wrong_product", testSmokeWrongProduct)
	t.Run("wrong_file", testSmokeWrongFile)
	t.Run("avif_header", testSmokeAvifHeader)
	t.Run("errors", testSmokeErrors)
	t.Run("flags", testSmokeFlags)
}

func testSmokeCompleteProduct(t *testing.T) {
	t.Parallel()
	s := newFakeShop(t)
	s.pending, s.refuse = 2, 1
	out, err := s.smoke(t)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"waiting: ", "503", "posted product 7 with 2 images", "image 2 of 2 is pending: http://src/2.jpg",
		"image 2 of 2 is ready",
		"product 7 is complete: 2 images, 6 files, ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if len(s.files) != 6 {
		t.Errorf("files %q were requested, want each once", s.files)
	}
}

func testSmokeRewrite(t *testing.T) {
	t.Parallel()
	s, cdn := newFakeShop(t), "https://cdn.example/x"
	s.edit = func(p *product) {
		for i := range p.Images {
			for j := range p.Images[i].Renditions {
				r := &p.Images[i].Renditions[j]
				r.URL = strings.Replace(r.URL, s.URL+"/media", cdn, 1)
			}
			p.Compressed[i] = p.Images[i].Renditions[0].URL
		}
	}
	if out, err := s.smoke(t, "--rewrite", "https://other=http://x", "--rewrite", cdn+"="+s.URL+"/media"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func testSmokeWrongProduct(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		want string
		edit func(p *product)
	}{
		"image_failed": {"image 2 (http://src/2.jpg) is failed: http_status: the source answered 404", func(p *product) {
			p.ImageStatus = "partial"
			if err := json.Unmarshal([]byte(`{"status":"failed","renditions":[],
				"error":{"code":"http_status","detail":"the source answered 404"}}`), &p.Images[1]); err != nil {
				t.Error(err)
			}
		}},
		"no_renditions":            {"is ready, 40 x 30, in 0 renditions", func(p *product) { p.Images[0].Renditions = nil }},
		"unknown_image_status":     {"(http://src/1.jpg) is odd", func(p *product) { p.Images[0].Status = "odd" }},
		"compressed_image_missing": {"with 1 compressed images of 2", func(p *product) { p.Compressed = p.Compressed[:1] }},
		"partial_product":          {"product 7 is partial", func(p *product) { p.ImageStatus = "partial" }},
		"unknown_compressed_image": {"x.jpg is not one of its renditions", func(p *product) {
			p.Compressed[0] = "http://x/x.jpg"
		}},
		"other_source":     {"has the images", func(p *product) { p.Sources[0] = "http://else" }},
		"image_missing":    {"(1 of them)", func(p *product) { p.Images = p.Images[:1] }},
		"negative_size":    {"-5 is not a valid size", func(p *product) { p.Images[0].Renditions[0].Bytes = -5 }},
		"size_above_limit": {"is not a valid size", func(p *product) { p.Images[0].Renditions[0].Bytes = 1 << 40 }},
		"other_format":     {"not image/webp", func(p *product) { p.Images[0].Renditions[0].Format = "webp" }},
		"other_width": {"it is jpeg of 20 x 15, not jpeg of", func(p *product) {
			p.Images[0].Renditions[0].Width = 21
		}},
		"file_url": {"unsupported protocol scheme", func(p *product) {
			p.Images[0].Renditions[1].URL = "file:///etc/passwd"
		}},
		"invalid_url": {"missing protocol scheme", func(p *product) { p.Images[0].Renditions[1].URL = "://" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFakeShop(t)
			s.edit = row.edit
			if out, err := s.smoke(t); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v\n%s", err, out)
			}
		})
	}
}

func testSmokeWrongFile(t *testing.T) {
	t.Parallel()
	good := file("jpeg", 20, 15)
	serve := func(media string, body []byte) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", media)
			_, _ = w.Write(body)
		}
	}
	for name, row := range map[string]struct {
		want  string
		serve func(http.ResponseWriter)
	}{
		"forbidden": {"the response is 403 Forbidden", func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) }},
		"redirect": {"the response is 302 Found", func(w http.ResponseWriter) {
			w.Header().Set("Location", "/media/0/thumb.jpeg")
			w.WriteHeader(http.StatusFound)
		}},
		"html":           {`the type is "text/html"`, serve("text/html; charset=utf-8", good)},
		"invalid_type":   {`the type is ""`, serve("/", good)},
		"empty_file":     {"bytes: 0 were read", serve("image/jpeg", nil)},
		"short_file":     {"thumb.jpeg: it does not have", serve("image/jpeg", good[:len(good)-1])},
		"long_file":      {"were read", serve("image/jpeg", append(bytes.Clone(good), bytes.Repeat([]byte{0}, 100)...))},
		"invalid_header": {"read its header", serve("image/jpeg", bytes.Repeat([]byte{'x'}, len(good)))},
		"incomplete_body": {"unexpected EOF", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "9999")
			serve("image/jpeg", good[:9])(w)
		}},
		"server_error": {"thumb as jpeg: http://127.0.0.1", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusInternalServerError)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFakeShop(t)
			s.serve = row.serve
			out, err := s.smoke(t, "--concurrency", "1")
			if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(out, "is complete") {
				t.Errorf("got %v\n%s", err, out)
			}
		})
	}
}

func testSmokeAvifHeader(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		"\x00\x00\x00\x1cftypavif....": true, "\x00\x00\x00\x1cftypavis....": true,
		"\x00\x00\x00\x1cftypheic....": false, "short": false,
	} {
		if err := (rendition{Format: "avif"}).checkHeader([]byte(body)); (err == nil) != want {
			t.Errorf("%q: got %v", body, err)
		}
	}
}

func testSmokeErrors(t *testing.T) {
	t.Parallel()
	s := newFakeShop(t)
	s.pending = 1 << 30
	if out, err := s.smoke(t, "--timeout", "700ms"); err == nil || !strings.Contains(err.Error(), "still pending") &&
		!strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("images that stay pending: got %v\n%s", err, out)
	}
	s = newFakeShop(t)
	s.post = http.StatusUnprocessableEntity
	start := time.Now()
	if out, err := s.smoke(t); err == nil || !strings.Contains(err.Error(), "422") || time.Since(start) > 30*time.Second {
		t.Errorf("a refused product: got %v after %s\n%s", err, time.Since(start), out)
	}
	s = newFakeShop(t)
	s.URL = "http://" + port.Addr(t) // where nothing listens
	if out, err := s.smoke(t, "--timeout", "1500ms"); err == nil || !strings.Contains(out, "connection refused") {
		t.Errorf("no server: got %v\n%s", err, out)
	}
}

func testSmokeFlags(t *testing.T) {
	t.Parallel()
	args := []string{"smoke", "--api", "localhost", "--rewrite", "x", "--timeout", "0s", "--concurrency", "0"}
	err := run(t.Context(), args, nil, io.Discard, io.Discard)
	if err == nil {
		t.Fatal("no error")
	}
	for _, flag := range []string{"--api", "--source", "--rewrite", "--timeout", "--concurrency"} {
		if !strings.Contains(err.Error(), flag+": ") {
			t.Errorf("%s is not in the error: %v", flag, err)
		}
	}
}
