package main

import (
	"context"
	"errors"
	"flag"
	"net"
	"net/http"
	"time"

	"vitrine.io/pkg/test/imageserver"
)

// runSource serves source images: every path like /640x480/anything.jpg.
func runSource(ctx context.Context, flags *flag.FlagSet, args []string) error {
	addr := flags.String("addr", ":8081", "address to listen on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return serve(ctx, *addr, imageserver.New())
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
