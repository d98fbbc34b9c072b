package main

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"vitrine.io/pkg/foundation/backoff"
)

// The photos: their size in pixels, the number of different landscapes, and the number of files kept, which are about 16
// MiB.
const (
	photoWidth   = 960
	photoHeight  = 640
	photoScenes  = 4
	maxPhotos    = 256
	photoQuality = 85
)

// sample is an image that this program draws, so that no other source is needed.
type sample struct {
	file          string
	width, height int
	encode        func(io.Writer, image.Image) error
}

func samples() []sample {
	return []sample{
		{"hills.jpg", 2400, 1600, func(w io.Writer, m image.Image) error { return jpeg.Encode(w, m, &jpeg.Options{Quality: 92}) }},
		{"dunes.png", 1800, 1200, png.Encode},
		{"coast.gif", 1000, 750, func(w io.Writer, m image.Image) error { return gif.Encode(w, m, nil) }},
	}
}

// drawFunc returns a file, which it draws at the first call.
type drawFunc = func() ([]byte, error)

// gallery serves sample images. It draws each at its first request, and keeps the maxPhotos photos that were requested last
// for the first time.
type gallery struct {
	http.Handler
	count  uint64 // of photos; 0: no limit
	delay  time.Duration
	named  map[string]drawFunc
	scenes [photoScenes]func() *image.RGBA

	mu     sync.Mutex
	photos map[uint64]drawFunc
	order  []uint64 // keys of photos, the oldest first
}

func newGallery(count uint64, delay time.Duration) *gallery {
	g := &gallery{count: count, delay: delay, named: map[string]drawFunc{}, photos: map[uint64]drawFunc{}}
	for i := range g.scenes {
		g.scenes[i] = sync.OnceValue(func() *image.RGBA { return landscape(photoWidth, photoHeight, len(samples())+i) })
	}
	mux := http.NewServeMux()
	for i, p := range samples() {
		g.named[p.file] = sync.OnceValues(func() ([]byte, error) {
			var file bytes.Buffer
			err := p.encode(&file, landscape(p.width, p.height, i))
			return file.Bytes(), err
		})
		mux.HandleFunc("GET /"+p.file, func(w http.ResponseWriter, r *http.Request) { g.serveFile(w, r, p.file, g.named[p.file]) })
	}
	mux.HandleFunc("GET /photos/{file}", g.servePhoto)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	g.Handler = mux
	return g
}

func (g *gallery) servePhoto(w http.ResponseWriter, r *http.Request) {
	file := r.PathValue("file")
	n, err := strconv.ParseUint(file[:max(0, len(file)-len(".jpg"))], 10, 64)
	if err != nil || file != strconv.FormatUint(n, 10)+".jpg" || g.count > 0 && (n < 1 || n > g.count) {
		http.NotFound(w, r)
		return
	}
	g.serveFile(w, r, file, g.photo(n))
}

func (g *gallery) serveFile(w http.ResponseWriter, r *http.Request, name string, file drawFunc) {
	if !backoff.Sleep(r.Context(), g.delay) {
		return
	}
	body, err := file()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(body))
}

// photo returns photo n, and drops the oldest one if there are too many.
func (g *gallery) photo(n uint64) drawFunc {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p, ok := g.photos[n]; ok {
		return p
	}
	if len(g.order) == maxPhotos {
		delete(g.photos, g.order[0])
		g.order = g.order[1:]
	}
	p := sync.OnceValues(func() ([]byte, error) {
		var file bytes.Buffer
		err := jpeg.Encode(&file, withNumber(g.scenes[n%photoScenes](), n), &jpeg.Options{Quality: photoQuality})
		return file.Bytes(), err
	})
	g.photos[n] = p
	g.order = append(g.order, n)
	return p
}

// withNumber returns a copy of scene with n on it, in binary, as two rows of dark and light squares: each number makes
// another image.
func withNumber(scene *image.RGBA, n uint64) image.Image {
	const side = 16 // pixels; two blocks of a JPEG, so that the number survives any quality
	m := image.NewRGBA(scene.Rect)
	copy(m.Pix, scene.Pix)
	for bit := range 64 {
		shade := color.Gray{Y: 40}
		if n>>bit&1 == 1 {
			shade.Y = 215
		}
		at := image.Pt(side+bit%32*side, side+bit/32*side)
		draw.Draw(m, image.Rectangle{Min: at, Max: at.Add(image.Pt(side, side))}, image.NewUniform(shade), image.Point{}, draw.Src)
	}
	return m
}
