package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"net"
	"net/http"
	"sync"
	"time"
)

// source serves a picture under every path like /640x480/anything.jpg, and counts who was asked for.
type source struct {
	mu       sync.Mutex
	pictures map[image.Point][]byte
	asked    map[string]int // by path
}

// downloads is what a source tells of itself, under /downloads.
type downloads struct {
	Paths int `json:"paths"` // that were asked for
	Total int `json:"total"`
}

// maxSide bounds the pictures that a source draws.
const maxSide = 4000

func newSource() http.Handler {
	s := &source{pictures: map[image.Point][]byte{}, asked: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /downloads", s.tell)
	mux.HandleFunc("GET /{size}/{name}", s.serve)
	return mux
}

func (s *source) tell(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	d := downloads{Paths: len(s.asked)}
	for _, n := range s.asked {
		d.Total += n
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(d)
}

func (s *source) serve(w http.ResponseWriter, r *http.Request) {
	var size image.Point
	if _, err := fmt.Sscanf(r.PathValue("size"), "%dx%d", &size.X, &size.Y); err != nil ||
		size.X < 1 || size.Y < 1 || size.X > maxSide || size.Y > maxSide {
		http.NotFound(w, r)
		return
	}
	picture, err := s.picture(size)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.mu.Lock()
	s.asked[r.URL.Path]++
	s.mu.Unlock()
	w.Header().Set("Content-Type", "image/jpeg")
	_, _ = w.Write(picture)
}

// picture draws a size once: colours that run into each other, and a grain as photographs have it.
func (s *source) picture(size image.Point) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pictures[size]; p != nil {
		return p, nil
	}
	m := image.NewRGBA(image.Rectangle{Max: size})
	grain := uint32(1)
	for y := range size.Y {
		for x := range size.X {
			grain = grain*1664525 + 1013904223
			g := int(grain >> 29)
			m.SetRGBA(x, y, color.RGBA{uint8(x*240/size.X + g), uint8(y*240/size.Y + g), uint8((x+y)%240 + g), 255})
		}
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, m, &jpeg.Options{Quality: 90}); err != nil {
		return nil, err
	}
	s.pictures[size] = out.Bytes()
	return out.Bytes(), nil
}

func runSource(ctx context.Context, flags *flag.FlagSet, args []string) error {
	addr := flags.String("addr", ":8081", "address to listen on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return serve(ctx, *addr, newSource())
}

// serve serves until ctx ends.
func serve(ctx context.Context, addr string, handler http.Handler) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	err = server.Close()
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}
