package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Server is an HTTP server in this process.
type Server struct {
	Addr  net.Addr      // where it listens
	Grace time.Duration // limits the time for responses in progress when the server is closed
	name  string        // for errors
	http  *http.Server
	ended chan error
}

// Serve starts a server on addr with a grace of 10 s. The caller closes it.
func Serve(name, addr string, handler http.Handler) (*Server, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", name, err)
	}
	s := &Server{
		Addr: listener.Addr(), Grace: 10 * time.Second, name: name, ended: make(chan error, 1),
		http: &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute},
	}
	go func() {
		defer close(s.ended)
		s.ended <- s.http.Serve(listener)
	}()
	return s, nil
}

// Ended receives the error with which the server ends, and is then closed.
func (s *Server) Ended() <-chan error { return s.ended }

// Close waits up to Grace for responses in progress. If it then has to interrupt others, it returns an error. A second
// call does nothing.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.Grace)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("stop %s: %w", s.name, err), s.http.Close())
	}
	if ended := <-s.ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
