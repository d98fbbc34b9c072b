package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/platform/devstack"
)

// get requests a path of a gallery.
func get(t *testing.T, g http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	g.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
	return w
}

func TestGallery(t *testing.T) {
	t.Parallel()
	t.Run("photos_differ", testGalleryPhotosDiffer)
	t.Run("unknown_paths", testGalleryUnknownPaths)
	t.Run("kept_photos_are_bounded", testGalleryKeptPhotosAreBounded)
	t.Run("drawing_fails", testGalleryDrawingFails)
	t.Run("cancelled_request", testGalleryCancelledRequest)
}

func testGalleryPhotosDiffer(t *testing.T) {
	t.Parallel()
	g := newGallery(0, 0)
	files, numbers := map[[32]byte]string{}, map[string]string{}
	for _, n := range []uint64{0, 4, 8, 1 << 20, 1 << 63, 1<<64 - 1} {
		path := fmt.Sprintf("/photos/%d.jpg", n)
		w := get(t, g, path)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "image/jpeg" {
			t.Fatalf("%s: %d %s", path, w.Code, w.Header().Get("Content-Type"))
		}
		body := bytes.Clone(w.Body.Bytes())
		if len(body) > 512<<10 {
			t.Errorf("%s has %d bytes: want at most 512 KiB", path, len(body))
		}
		m, format, err := image.Decode(w.Body)
		if err != nil || format != "jpeg" || m.Bounds().Dx() != photoWidth || m.Bounds().Dy() != photoHeight {
			t.Fatalf("%s: %s %v, %v", path, format, m, err)
		}
		if other, ok := files[sha256.Sum256(body)]; ok {
			t.Errorf("%s equals %s", path, other)
		}
		files[sha256.Sum256(body)] = path
		if number := numberOf(m); numbers[number] != "" || number != fmt.Sprintf("%064b", n) {
			t.Errorf("%s has the number %s, as has %q", path, number, numbers[number])
		} else {
			numbers[number] = path
		}
	}
	if other := get(t, newGallery(0, 0), "/photos/8.jpg").Body.Bytes(); files[sha256.Sum256(other)] != "/photos/8.jpg" {
		t.Error("photo 8 of another gallery differs")
	}
}

// numberOf reads the number on a photo, in binary.
func numberOf(m image.Image) string {
	var number strings.Builder
	for bit := 63; bit >= 0; bit-- {
		r, _, _, _ := m.At(16+bit%32*16+8, 16+bit/32*16+8).RGBA()
		number.WriteByte('0' + byte(r>>15))
	}
	return number.String()
}

func testGalleryUnknownPaths(t *testing.T) {
	t.Parallel()
	g := newGallery(3, 0)
	for path, want := range map[string]int{
		"/photos/1.jpg": 200, "/healthz": 200,
		"/photos/0.jpg": 404, "/photos/4.jpg": 404, "/photos/01.jpg": 404, "/photos/-1.jpg": 404, "/photos/.jpg": 404,
		"/photos/1.png": 404, "/photos/jpg": 404, "/photos/18446744073709551616.jpg": 404, "/photos/": 404, "/": 404,
		"/moon.jpg": 404,
	} {
		if got := get(t, g, path).Code; got != want {
			t.Errorf("%s: got %d, want %d", path, got, want)
		}
	}
}

func testGalleryKeptPhotosAreBounded(t *testing.T) {
	t.Parallel()
	g := newGallery(0, 0)
	for n := range uint64(maxPhotos + 10) {
		g.photo(n) // only a read draws it
	}
	g.photo(maxPhotos)
	if len(g.photos) != maxPhotos || len(g.order) != maxPhotos {
		t.Errorf("%d photos and %d keys are kept, want %d", len(g.photos), len(g.order), maxPhotos)
	}
	if _, ok := g.photos[9]; ok {
		t.Error("the oldest photo is kept")
	}
	if _, ok := g.photos[10]; !ok {
		t.Error("a photo below the limit is not kept")
	}
}

func testGalleryDrawingFails(t *testing.T) {
	t.Parallel()
	g, w := newGallery(0, 0), httptest.NewRecorder()
	g.serveFile(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", http.NoBody), "x",
		func() ([]byte, error) { return nil, errors.New("cannot draw") })
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "cannot draw") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// lines is a writer that sends each write to a channel.
type lines chan string

func (l lines) Write(p []byte) (int, error) { l <- string(p); return len(p), nil }

func TestSamples(t *testing.T) {
	t.Parallel()
	t.Run("serves_until_stopped", testSamplesServesUntilStopped)
	t.Run("stop_finishes_responses", testSamplesStopFinishesResponses)
	t.Run("address_in_use", testSamplesAddressInUse)
}

func testSamplesServesUntilStopped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	output, ended := make(lines, 8), make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"samples", "--addr", "127.0.0.1:0", "--delay", "50ms"}, nil, output, io.Discard)
	}()
	_, url, ok := strings.Cut(strings.TrimSpace(<-output), " on ")
	if !ok {
		t.Fatal("the output has no address")
	}
	start := time.Now()
	if status, body := fetch(t, url+"/photos/1.jpg"); status != http.StatusOK || len(body) == 0 {
		t.Errorf("got %d, %d bytes", status, len(body))
	}
	if elapsed := time.Since(start); elapsed < 50*time.Millisecond {
		t.Errorf("the response came after %s, want at least the delay", elapsed)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := <-output; got != "vitrine: stopping\n" {
		t.Errorf("got %q", got)
	}
}

func testSamplesStopFinishesResponses(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	server, err := devstack.Serve("samples", "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = io.WriteString(w, "complete")
	}))
	if err != nil {
		t.Fatal(err)
	}
	stopped, answered := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(answered)
		if status, body := fetch(t, "http://"+server.Addr.String()); status != http.StatusOK || string(body) != "complete" {
			t.Errorf("got %d %s", status, body)
		}
	}()
	<-entered
	go func() { stopped <- server.Close() }()
	for { // until new connections are refused
		conn, err := net.Dial("tcp", server.Addr.String())
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	close(release)
	<-answered
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// fetch gets a URL.
func fetch(t *testing.T, url string) (status int, body []byte) {
	t.Helper()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Get(url)
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		t.Error(err)
	}
	return resp.StatusCode, body
}

func testGalleryCancelledRequest(t *testing.T) {
	t.Parallel()
	g := newGallery(0, time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	g.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/hills.jpg", http.NoBody))
	if w.Body.Len() != 0 {
		t.Errorf("%d bytes were sent", w.Body.Len())
	}
}

func testSamplesAddressInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = run(t.Context(), []string{"samples", "--addr", l.Addr().String()}, nil, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "serve samples") {
		t.Errorf("got %v", err)
	}
}
