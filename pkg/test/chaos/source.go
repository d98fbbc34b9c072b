package main

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Behaviours of the source server, the last part of a URL's path. All others than Good* are those that never become a
// picture.
const (
	GoodJPEG  = "good.jpg"
	GoodPNG   = "good.png"
	GoodSlow  = "slow.jpg"  // begins after a second
	GoodFlaky = "flaky.jpg" // 503 for the first time, and then the picture
	GoodMoved = "moved.jpg" // leads to the picture
	Missing   = "missing.jpg"
	Away      = "away.jpg" // 503, always
	Hanging   = "hanging.jpg"
	Short     = "short.jpg"   // ends before its announced length
	Damaged   = "damaged.jpg" // complete, but only half of the file
	Text      = "text.jpg"
	Huge      = "huge.png" // its header says 40000x40000
	Broken    = "broken.jpg"
)

// behaviours in the proportion in which clients use them.
var behaviours = []string{
	GoodJPEG, GoodJPEG, GoodJPEG, GoodJPEG, GoodJPEG, GoodJPEG, GoodPNG, GoodPNG, GoodPNG, GoodSlow, GoodSlow, GoodFlaky,
	GoodFlaky, GoodMoved, Missing, Away, Hanging, Short, Damaged, Text, Huge, Broken,
}

// Behaviour is what the source does with a URL of it.
func Behaviour(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// IsGood says whether a picture can come of a URL of the source.
func IsGood(url string) bool {
	switch Behaviour(url) {
	case GoodJPEG, GoodPNG, GoodSlow, GoodFlaky, GoodMoved:
		return true
	default:
		return false
	}
}

// sizes are those of the pictures, in pixels.
var sizes = [][2]int{{64, 64}, {320, 200}, {200, 320}, {640, 480}, {480, 640}, {900, 300}, {801, 601}, {1024, 768}, {33, 47}}

// Source serves pictures, good and bad: /ANY/PATH/NUMBER/BEHAVIOUR. Equal paths are always answered with the same picture.
type Source struct {
	URL string

	http  *http.Server
	drawn sync.Map // files by name and size
	mu    sync.Mutex
	asked map[string]int // requests of flaky paths
}

// NewSource serves on a free port until Close.
func NewSource() (*Source, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve sources: %w", err)
	}
	s := &Source{URL: "http://" + listener.Addr().String(), asked: map[string]int{}}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.http.Serve(listener) }() // ends with Close
	return s, nil
}

// Close ends the server and all its connections.
func (s *Source) Close() error { return s.http.Close() }

// ServeHTTP answers as the path says.
func (s *Source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch Behaviour(path) {
	case GoodJPEG, GoodPNG:
		s.picture(w, path)
	case GoodSlow:
		if pause(r.Context(), time.Second) {
			s.picture(w, path)
		}
	case GoodFlaky:
		s.mu.Lock()
		s.asked[path]++
		first := s.asked[path] == 1
		s.mu.Unlock()
		if first {
			http.Error(w, "later", http.StatusServiceUnavailable)
			return
		}
		s.picture(w, path)
	case GoodMoved:
		w.Header().Set("Location", GoodJPEG) // beside it
		w.WriteHeader(http.StatusFound)
	case Away:
		http.Error(w, "not now", http.StatusServiceUnavailable)
	case Hanging:
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case Short, Damaged:
		s.half(w, path)
	case Text:
		_, _ = io.WriteString(w, "this is not a picture, whatever its name says")
	case Huge:
		_, _ = w.Write(hugeHeader())
	case Broken:
		hijackAndReset(w)
	default:
		http.NotFound(w, r)
	}
}

// half sends half of a picture: as if it were all, or as what it is.
func (s *Source) half(w http.ResponseWriter, path string) {
	file := s.file(path)
	if Behaviour(path) == Short {
		w.Header().Set("Content-Length", fmt.Sprint(len(file)))
	}
	_, _ = w.Write(file[:len(file)/2])
}

func hijackAndReset(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		reset(conn)
	}
}

func (s *Source) picture(w http.ResponseWriter, path string) { _, _ = w.Write(s.file(path)) }

// file draws what belongs to a path.
func (s *Source) file(path string) []byte {
	number := crc32.ChecksumIEEE([]byte(path))
	size, shade := sizes[number%uint32(len(sizes))], number/uint32(len(sizes))%4
	format := path[strings.LastIndexByte(path, '.')+1:]
	draw, _ := s.drawn.LoadOrStore(fmt.Sprint(size, shade, format), sync.OnceValue(func() []byte {
		var file bytes.Buffer
		m := scene(size[0], size[1], float64(shade))
		if format == "png" {
			_ = png.Encode(&file, m) // a buffer takes everything
		} else {
			_ = jpeg.Encode(&file, m, &jpeg.Options{Quality: 85})
		}
		return file.Bytes()
	}))
	made, _ := draw.(func() []byte)
	return made()
}

// scene is a smooth picture with some detail.
func scene(width, height int, shade float64) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			u, v := float64(x)/float64(width), float64(y)/float64(height)
			wave := uint8(127 + 120*math.Sin(9*u+shade)*math.Cos(7*v-shade))
			m.SetRGBA(x, y, color.RGBA{uint8(255 * u), uint8(255 * v), wave, 255})
		}
	}
	return m
}

// hugeHeader is the beginning of a PNG of 40000x40000 pixels.
func hugeHeader() []byte {
	ihdr := []byte{'I', 'H', 'D', 'R', 0, 0, 0x9c, 0x40, 0, 0, 0x9c, 0x40, 8, 2, 0, 0, 0}
	sum := crc32.ChecksumIEEE(ihdr)
	head := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\r"), ihdr...)
	return append(head, byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
}
