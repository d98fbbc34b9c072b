package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"vitrine.io/pkg/platform/devstack"
)

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
	server, err := devstack.Serve("samples", o.addr, g)
	if err != nil {
		return err
	}
	c.say("serving sample images on http://%s", server.Addr)
	select {
	case <-ctx.Done():
	case err := <-server.Ended():
		return fmt.Errorf("serve samples: %w", err)
	}
	c.say("stopping")
	return server.Close()
}
