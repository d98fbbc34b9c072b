package devstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
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
// object by its key, in a bucket that has a policy.
type S3 struct{ *Server }

// StartS3 starts the store with the objects in Dir. The caller closes it; active requests have 5 s to end.
func StartS3(cfg S3Config) (*S3, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start s3 in %s: %w", cfg.Dir, err)
	}
	disk, err := openDisk(afero.NewBasePathFs(afero.NewOsFs(), cfg.Dir))
	if err != nil {
		return nil, fmt.Errorf("start s3 in %s: %w", cfg.Dir, err)
	}
	handler := s3Handler{
		store: disk, next: gofakes3.New(disk).Server(), public: publicBuckets(filepath.Join(cfg.Dir, "public")),
	}
	server, err := Serve("s3", cmp.Or(cfg.Addr, anyPort), handler)
	if err != nil {
		return nil, err
	}
	server.Grace = 5 * time.Second
	return &S3{server}, nil
}

// Close stops the store. Unlike Close of a Server, it may interrupt requests without an error, because clients repeat
// them. A second call does nothing.
func (s *S3) Close() error {
	if err := s.Server.Close(); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// Endpoint returns the URL of the store, for path-style requests. If the store listens on all interfaces, the URL has the
// loopback address.
func (s *S3) Endpoint() string {
	addr := s.Addr.String()
	if tcp, ok := s.Addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
	}
	return "http://" + addr
}
