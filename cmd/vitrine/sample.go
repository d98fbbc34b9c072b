package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// sampleGrace limits the time for responses in progress when the server of samples stops.
const sampleGrace = 10 * time.Second

// sampleOptions are the flags of samples.
type sampleOptions struct {
	addr  string
	count uint64
	delay time.Duration
}

func (c console) samplesCommand() *cobra.Command {
	var o sampleOptions
	cmd := &cobra.Command{
		Use: "samples", Short: "Serve sample images until it is stopped", Args: cobra.NoArgs,
		Long: `Serves /hills.jpg, /dunes.png and /coast.gif, the samples of vitrine dev, and /photos/N.jpg for any whole number N:
each N has its own image, which is always the same. /healthz answers 200. For clusters without another source of images, and
for tests that need many.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.samples(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.addr, "addr", "127.0.0.1:8081", "address to listen on")
	f.Uint64Var(&o.count, "count", 0, "serve only the photos 1 to COUNT, and 404 for others; 0: no limit")
	f.DurationVar(&o.delay, "delay", 0, "delay of each response, as of a slow source")
	return cmd
}

// samples serves until ctx ends.
func (c console) samples(ctx context.Context, o sampleOptions) error {
	g := newGallery(o.count, o.delay)
	server, err := listen(o.addr, g)
	if err != nil {
		return err
	}
	c.say("serving sample images on http://%s", server.addr)
	select {
	case <-ctx.Done():
	case err := <-server.done:
		return fmt.Errorf("serve samples: %w", err)
	}
	c.say("stopping")
	return server.stop()
}

// sampleServer is a running server of samples.
type sampleServer struct {
	addr string // where it listens
	http *http.Server
	done chan error // why it ended
}

func listen(addr string, handler http.Handler) (*sampleServer, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve samples: %w", err)
	}
	s := &sampleServer{
		addr: listener.Addr().String(), done: make(chan error, 1),
		http: &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute},
	}
	go func() { s.done <- s.http.Serve(listener) }()
	return s, nil
}

// stop waits sampleGrace for responses in progress, and interrupts the rest.
func (s *sampleServer) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), sampleGrace)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("stop samples: %w", err), s.http.Close())
	}
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
