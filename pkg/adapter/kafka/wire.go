package kafka

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// errCut is what a dial on a cut wire fails with.
var errCut = errors.New("connection was cut: out of time")

// Dial opens a network connection, as net.Dialer.DialContext does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// connTracker is all connections of one sarama client. sarama knows no contexts, only timeouts per request that add up; cutting
// its wire makes everything it still waits for fail at once, and it answers for every message.
type connTracker struct {
	dial   Dial
	ctx    context.Context //nolint:containedctx // ends with the wire, so that dials in progress end too
	cancel context.CancelFunc
	gone   atomic.Bool
	mu     sync.Mutex
	conns  map[*trackedConn]struct{}
}

// newConnTracker returns a wire that dials with dial, or with the plain dialer and timeout if dial is nil.
func newConnTracker(dial Dial, timeout time.Duration) *connTracker {
	if dial == nil {
		dial = (&net.Dialer{Timeout: timeout}).DialContext
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &connTracker{dial: dial, ctx: ctx, cancel: cancel, conns: make(map[*trackedConn]struct{})}
}

// Dial implements the dialer that sarama takes.
func (w *connTracker) Dial(network, address string) (net.Conn, error) {
	if w.gone.Load() {
		return nil, errCut
	}
	conn, err := w.dial(w.ctx, network, address)
	if err != nil {
		return nil, err
	}
	t := &trackedConn{Conn: conn, wire: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone.Load() {
		_ = conn.Close()
		return nil, errCut
	}
	w.conns[t] = struct{}{}
	return t, nil
}

// cut ends every connection and refuses new ones, for good.
func (w *connTracker) cut() {
	w.gone.Store(true)
	w.cancel()
	w.mu.Lock()
	conns := w.conns
	w.conns = make(map[*trackedConn]struct{})
	w.mu.Unlock()
	for t := range conns {
		_ = t.Conn.Close()
	}
}

// backoff returns a function for sarama's retries: d, or nothing once the wire is cut, when waiting can only delay.
func (w *connTracker) backoff(d time.Duration) func(retries, maxRetries int) time.Duration {
	return func(int, int) time.Duration {
		if w.gone.Load() {
			return 0
		}
		return d
	}
}

// trackedConn is a connection that its wire knows of until it is closed.
type trackedConn struct {
	net.Conn
	wire *connTracker
}

// Close implements net.Conn.
func (t *trackedConn) Close() error {
	t.wire.mu.Lock()
	delete(t.wire.conns, t)
	t.wire.mu.Unlock()
	return t.Conn.Close()
}
