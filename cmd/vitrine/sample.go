package main

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	xdraw "golang.org/x/image/draw"
)

// sample is a picture that dev draws itself, so that it needs no other source.
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

// serveSamples draws the sample pictures, once, and serves them.
func (s *stack) serveSamples() error {
	dir := filepath.Join(s.options.data, "samples")
	for i, p := range samples() {
		if err := p.write(filepath.Join(dir, p.file), i); err != nil {
			return fmt.Errorf("draw %s: %w", p.file, err)
		}
	}
	listener, err := net.Listen("tcp", s.options.samples)
	if err != nil {
		return fmt.Errorf("serve samples: %w", err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: 5 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	s.later(func() error {
		err := server.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	})
	return nil
}

// write draws the picture into a file, unless it is there. A file that is there is whole.
func (p sample) write(path string, seed int) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), p.file+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // renamed, if all went well
	if err := errors.Join(p.encode(f, draw(p.width, p.height, seed)), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// draw paints a landscape in a quarter of the size, and enlarges it with a little grain, as photographs have it.
func draw(width, height, seed int) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	small := paint(width/4, height/4, seed)
	xdraw.ApproxBiLinear.Scale(m, m.Rect, small, small.Rect, xdraw.Src, nil)
	noise := uint32(seed)*2654435761 + 1
	for i := 0; i < len(m.Pix); i += 4 {
		noise = noise*1664525 + 1013904223
		grain := int(noise>>29) - 4
		for c := range 3 {
			m.Pix[i+c] = uint8(max(0, min(255, int(m.Pix[i+c])+grain)))
		}
	}
	return m
}

// paint is a sky from one colour to another, a sun, and ranges of hills that darken towards the viewer.
func paint(width, height, seed int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	skies := [][2]color.RGBA{
		{{40, 70, 140, 255}, {250, 190, 120, 255}},
		{{90, 140, 200, 255}, {245, 225, 190, 255}},
		{{30, 40, 80, 255}, {220, 120, 120, 255}},
	}
	sky := skies[seed%len(skies)]
	for x := range width {
		u := float64(x) / float64(width)
		var ridge [4]float64
		for r := range ridge {
			k, phase := float64(3+2*r), float64(seed*7+r*3)
			ridge[r] = .45 + .13*float64(r) + .06*math.Sin(k*2*u+phase) + .025*math.Sin(3.1*k*u+2*phase) + .008*math.Sin(17*k*u+phase)
		}
		for y := range height {
			v := float64(y) / float64(height)
			c := blend(sky[0], sky[1], v*1.6)
			if d := math.Hypot((u-.68)*float64(width)/float64(height), v-.3); d < .3 {
				c = blend(c, color.RGBA{255, 244, 214, 255}, math.Min(1, .02/(d*d+.012)))
			}
			for r := range ridge {
				if v > ridge[r] {
					near := float64(r+1) / 4
					c = blend(blend(sky[1], color.RGBA{24, 44, 36, 255}, .35+.6*near), color.RGBA{12, 20, 18, 255}, (v-ridge[r])*1.2)
				}
			}
			m.SetRGBA(x, y, c)
		}
	}
	return m
}

// blend mixes a and b; t is held between 0 (all a) and 1 (all b).
func blend(a, b color.RGBA, t float64) color.RGBA {
	t = math.Max(0, math.Min(1, t))
	mix := func(x, y uint8) uint8 { return uint8(float64(x) + t*(float64(y)-float64(x))) }
	return color.RGBA{mix(a.R, b.R), mix(a.G, b.G), mix(a.B, b.B), 255}
}
