// Package imageserver serves source images for tests and harnesses, valid ones and faulty ones. The response depends only on
// the path of the URL:
//
//	/ANY/PATH/NAME.jpg     an image, JPEG or (with .png) PNG; its size follows from the path
//	/1200x800/NAME.jpg     an image of that size, in pixels
//	/ANY/PATH/missing.jpg  a fault: the names are this package's constants
//	/downloads             how often images were requested, as JSON
//	/healthz               200
//
// Equal paths have the same response, except where a fault is a sequence of responses.
package imageserver

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Names of images that can be rendered.
const (
	JPEG       = "good.jpg"
	PNG        = "good.png"
	Slow       = "slow.jpg"    // the response begins after a second
	FlakyOnce  = "flaky-1.jpg" // 503 for the first request of the path, then the image
	FlakyTwice = "flaky-2.jpg" // 503 for the first two requests of the path, then the image
	Moved      = "moved.jpg"   // a redirect to the image
	Held       = "held.jpg"    // the response begins when [Server.Release] is called
)

// Names of images that cannot be rendered.
const (
	Missing     = "missing.jpg"     // 404
	Unavailable = "unavailable.jpg" // 503
	Hanging     = "hanging.jpg"     // the response header, and never a body
	Short       = "short.jpg"       // the connection closes before the announced length
	Truncated   = "truncated.jpg"   // a complete response with the first half of a file
	Text        = "text.jpg"        // no image at all
	Huge        = "huge.png"        // a PNG header of 40000 x 40000 pixels
	Reset       = "reset.jpg"       // the connection is reset
)

// maxSide is the largest width or height that is served, in pixels.
const maxSide = 4000

// heldRequests is the capacity of [Server.HeldRequests].
const heldRequests = 100

// Name returns the last part of a URL's path, which determines the response.
func Name(url string) string {
	path, _, _ := strings.Cut(url, "?")
	return path[strings.LastIndexByte(path, '/')+1:]
}

// IsGood reports whether the image at a URL of a server can be rendered.
func IsGood(url string) bool {
	switch Name(url) {
	case Missing, Unavailable, Hanging, Short, Truncated, Text, Huge, Reset:
		return false
	default:
		return true
	}
}

// Downloads is the response of /downloads.
type Downloads struct {
	Paths int `json:"paths"` // different ones
	Total int `json:"total"` // requests
}

// Server serves images. It is safe for concurrent use.
type Server struct {
	URL string // of the server that [Start] has started, without a slash at the end

	http     *http.Server
	files    sync.Map // func() []byte by content
	held     chan struct{}
	release  chan struct{}
	once     sync.Once
	mu       sync.Mutex
	requests map[string]int // by path
	absent   map[string]bool
}

// New returns a server that does not listen, for use as an [http.Handler].
func New() *Server {
	return &Server{
		held: make(chan struct{}, heldRequests), release: make(chan struct{}),
		requests: map[string]int{}, absent: map[string]bool{},
	}
}

// Start returns a server that listens on a free port of 127.0.0.1 until Close.
func Start() (*Server, error) { return StartAt("127.0.0.1:0") }

// StartAt returns a server that listens on addr until Close.
func StartAt(addr string) (*Server, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve images: %w", err)
	}
	s := New()
	s.URL = "http://" + listener.Addr().String()
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.http.Serve(listener) }() // ends with Close
	return s, nil
}

// Close ends a started server and all its connections.
func (s *Server) Close() error { return s.http.Close() }

// Requests returns the number of requests for a path.
func (s *Server) Requests(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[path]
}

// HeldRequests receives a value for each request of [Held].
func (s *Server) HeldRequests() <-chan struct{} { return s.held }

// Release lets the server respond to all requests of [Held], current and later ones.
func (s *Server) Release() { s.once.Do(func() { close(s.release) }) }

// SetAbsent sets whether the response for a path is 404, instead of that for its name.
func (s *Server) SetAbsent(path string, absent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.absent[path] = absent
}

// ServeHTTP sends the response for the path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz":
		return
	case "/downloads":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.downloads()) // the client has closed the connection
		return
	}
	c, ok := contentOf(r.URL.Path)
	if !ok {
		http.NotFound(w, r)
		return
	}
	s.mu.Lock()
	s.requests[r.URL.Path]++
	nth, absent := s.requests[r.URL.Path], s.absent[r.URL.Path]
	s.mu.Unlock()
	if absent {
		http.NotFound(w, r)
		return
	}
	s.respond(w, r, nth, c)
}

func (s *Server) downloads() Downloads {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := Downloads{Paths: len(s.requests)}
	for _, n := range s.requests {
		d.Total += n
	}
	return d
}

// respond sends the response for the nth request of a path.
func (s *Server) respond(w http.ResponseWriter, r *http.Request, nth int, c content) {
	switch Name(r.URL.Path) {
	case FlakyOnce, FlakyTwice:
		if nth <= flakiness(r.URL.Path) {
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(s.file(c))
	case Slow:
		select {
		case <-time.After(time.Second):
			_, _ = w.Write(s.file(c))
		case <-r.Context().Done():
		}
	case Held:
		select {
		case s.held <- struct{}{}:
		case <-r.Context().Done():
		}
		select {
		case <-s.release:
			_, _ = w.Write(s.file(c))
		case <-r.Context().Done():
		}
	case Moved:
		w.Header().Set("Location", JPEG) // beside it
		w.WriteHeader(http.StatusFound)
	default:
		s.fault(w, r, c)
	}
}

// fault sends the faulty responses, and an image for all other names.
func (s *Server) fault(w http.ResponseWriter, r *http.Request, c content) {
	switch Name(r.URL.Path) {
	case Missing:
		http.NotFound(w, r)
	case Unavailable:
		http.Error(w, "unavailable", http.StatusServiceUnavailable)
	case Hanging:
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case Short:
		file := s.file(c)
		w.Header().Set("Content-Length", strconv.Itoa(len(file)))
		_, _ = w.Write(file[:len(file)/2])
	case Truncated:
		file := s.file(c)
		_, _ = w.Write(file[:len(file)/2])
	case Text:
		_, _ = w.Write([]byte("this is text, not an image"))
	case Huge:
		_, _ = w.Write(hugeHeader())
	case Reset:
		reset(w)
	default:
		_, _ = w.Write(s.file(c))
	}
}

// flakiness returns how many requests of a path fail.
func flakiness(path string) int {
	if Name(path) == FlakyTwice {
		return 2
	}
	return 1
}

// reset ends the connection with a reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
