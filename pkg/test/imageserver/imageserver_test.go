package imageserver_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"io"
	"net/http"
	"testing"
	"time"

	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/imageserver"
)

// start returns a server and a function that requests a path of it.
func start(t *testing.T) (s *imageserver.Server, get func(ctx context.Context, path string) (client.Response, error)) {
	t.Helper()
	s, err := imageserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c := client.New(s.URL, client.Options{FreshConns: true, Timeout: 5 * time.Minute}) // encoding is slow with -race
	return s, func(ctx context.Context, path string) (client.Response, error) {
		return c.Do(ctx, http.MethodGet, path, nil)
	}
}

func TestResponses(t *testing.T) {
	t.Parallel()
	_, get := start(t)
	for name, row := range map[string]struct {
		status int
		good   bool
	}{
		imageserver.JPEG: {200, true}, imageserver.PNG: {200, true}, imageserver.Slow: {200, true}, imageserver.Moved: {200, true},
		"other.jpg": {200, true}, imageserver.Missing: {404, false}, imageserver.Unavailable: {503, false},
		imageserver.Truncated: {200, false}, imageserver.Text: {200, false}, imageserver.Huge: {200, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := get(t.Context(), "/any/1/"+name)
			if err != nil || got.Status != row.status {
				t.Fatalf("got %d, %v", got.Status, err)
			}
			if _, _, err := image.Decode(bytes.NewReader(got.Body)); (err == nil) != row.good {
				t.Errorf("decode: %v", err)
			}
			if imageserver.IsGood("http://127.0.0.1/any/1/"+name+"?query") != row.good {
				t.Errorf("IsGood is %v", !row.good)
			}
		})
	}
}

func TestBrokenResponses(t *testing.T) {
	t.Parallel()
	_, get := start(t)
	t.Run("short", func(t *testing.T) {
		t.Parallel()
		if _, err := get(t.Context(), "/1/"+imageserver.Short); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		t.Parallel()
		if got, err := get(t.Context(), "/1/"+imageserver.Reset); err == nil {
			t.Errorf("got %d", got.Status)
		}
	})
	t.Run("hanging", func(t *testing.T) {
		t.Parallel()
		s, _ := start(t)
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/"+imageserver.Hanging, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		cancel()
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("huge_header", func(t *testing.T) {
		t.Parallel()
		got, err := get(t.Context(), "/1/"+imageserver.Huge)
		if err != nil {
			t.Fatal(err)
		}
		head, _, err := image.DecodeConfig(bytes.NewReader(got.Body))
		if err != nil || head.Width != 40000 || head.Height != 40000 {
			t.Errorf("got %+v, %v", head, err)
		}
	})
}

func TestSizes(t *testing.T) {
	t.Parallel()
	_, get := start(t)
	for path, want := range map[string]image.Point{
		"/64x48/a.jpg": image.Pt(64, 48), "/deep/64x48/b.png": image.Pt(64, 48), "/64x48/" + imageserver.Moved: image.Pt(64, 48),
		"/0x1/a.jpg": {}, "/9999x1/a.jpg": {}, "/1x-1/a.jpg": {}, "/": {}, "/64x48/a.gif": {},
	} {
		got, err := get(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		m, _, err := image.Decode(bytes.NewReader(got.Body))
		switch {
		case want == image.Point{}:
			if got.Status != http.StatusNotFound {
				t.Errorf("%s: got %d, want 404", path, got.Status)
			}
		case err != nil || m.Bounds().Size() != want || imageserver.Scene(64, 48).Bounds() != m.Bounds():
			t.Errorf("%s: got %v, want %v", path, err, want)
		}
	}
	one, _ := get(t.Context(), "/64x48/one.jpg")
	two, _ := get(t.Context(), "/64x48/two.jpg")
	if !bytes.Equal(one.Body, two.Body) {
		t.Error("images of one size differ")
	}
}

func TestSequences(t *testing.T) {
	t.Parallel()
	s, get := start(t)
	statuses := func(path string, want ...int) {
		t.Helper()
		for i, status := range want {
			if got, err := get(t.Context(), path); err != nil || got.Status != status {
				t.Errorf("%s, request %d: got %d, %v; want %d", path, i+1, got.Status, err, status)
			}
		}
		if n := s.Requests(path); n != len(want) {
			t.Errorf("%s: %d requests are counted, want %d", path, n, len(want))
		}
	}
	statuses("/a/"+imageserver.FlakyOnce, 503, 200, 200)
	statuses("/b/"+imageserver.FlakyOnce, 503, 200)
	statuses("/a/"+imageserver.FlakyTwice, 503, 503, 200)
	s.SetAbsent("/late.png", true)
	statuses("/late.png", 404)
	s.SetAbsent("/late.png", false)
	if got, err := get(t.Context(), "/late.png"); err != nil || got.Status != http.StatusOK {
		t.Errorf("no longer absent: got %d, %v", got.Status, err)
	}
}

func TestHeld(t *testing.T) {
	t.Parallel()
	s, get := start(t)
	statuses := make(chan int, 1)
	go func() {
		got, _ := get(t.Context(), "/"+imageserver.Held)
		statuses <- got.Status
	}()
	<-s.HeldRequests()
	select {
	case status := <-statuses:
		t.Fatalf("got status %d before the release", status)
	default:
	}
	s.Release()
	s.Release()
	if status := <-statuses; status != http.StatusOK {
		t.Errorf("got %d", status)
	}
}

func TestDownloads(t *testing.T) {
	t.Parallel()
	_, get := start(t)
	for _, path := range []string{"/64x48/a.jpg", "/64x48/b.jpg", "/64x48/b.jpg", "/healthz", "/0x1/a.jpg"} {
		if _, err := get(t.Context(), path); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := get(t.Context(), "/downloads"); err != nil || string(got.Body) != `{"paths":2,"total":3}`+"\n" {
		t.Errorf("got %s, %v", got.Body, err)
	}
}
