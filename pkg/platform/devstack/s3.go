package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/spf13/afero"
)

// anyPort is a loopback address with a port that the kernel chooses.
const anyPort = "127.0.0.1:0"

// S3Config configures the stand-in for S3.
type S3Config struct {
	Dir  string // directory of the objects, created if missing; only this process may write in it
	Addr string // host:port; port 0 is any free one, empty is 127.0.0.1:0
}

// S3 is an object store on disk, served by this process. It accepts every signature. An unsigned request can only read an
// object by its key.
type S3 struct {
	addr   net.Addr
	server *http.Server
	served chan struct{}
}

// Bounds of the HTTP server.
const (
	s3HeaderTimeout = 10 * time.Second
	s3IdleTimeout   = 2 * time.Minute
	s3Drain         = 5 * time.Second
)

// StartS3 starts the store with the objects in Dir. The caller closes it.
func StartS3(cfg S3Config) (*S3, error) {
	if cfg.Addr == "" {
		cfg.Addr = anyPort
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start s3 in %s: %w", cfg.Dir, err)
	}
	disk, err := openDisk(afero.NewBasePathFs(afero.NewOsFs(), cfg.Dir))
	if err != nil {
		return nil, fmt.Errorf("start s3 in %s: %w", cfg.Dir, err)
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("start s3 on %s: %w", cfg.Addr, err)
	}
	s := &S3{
		addr: listener.Addr(),
		server: &http.Server{
			Handler:           s3Handler{store: disk, next: gofakes3.New(disk).Server()},
			ReadHeaderTimeout: s3HeaderTimeout,
			IdleTimeout:       s3IdleTimeout,
		},
		served: make(chan struct{}),
	}
	go func() {
		defer close(s.served)
		_ = s.server.Serve(listener) // returns http.ErrServerClosed after Close
	}()
	return s, nil
}

// Endpoint returns the URL of the store, for path-style requests. For a store that listens on all interfaces it has the
// loopback address.
func (s *S3) Endpoint() string {
	addr := s.addr.String()
	if tcp, ok := s.addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
	}
	return "http://" + addr
}

// PublicURL returns the base URL of a bucket's objects, to which a slash and the key are appended.
func (s *S3) PublicURL(bucket string) string { return s.Endpoint() + "/" + bucket }

// Close stops the store. It waits for active requests, for 5 s at most. A second call does nothing.
func (s *S3) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s3Drain)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.server.Close()
	}
	<-s.served
	if err != nil {
		return fmt.Errorf("close s3: %w", err)
	}
	return nil
}
