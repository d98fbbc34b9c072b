package kafka

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// errConnsClosed is the error of a dial after closeAll.
var errConnsClosed = errors.New("connections were closed: timeout")

// Dial opens a network connection, as net.Dialer.DialContext does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// connTracker tracks the connections of one sarama client. sarama accepts no contexts, only timeouts for each request to
// a broker, and several of these may follow one another. When all connections are closed, every pending request to a
// broker fails at once, so that sarama reports a result for every message.
type connTracker struct {
	dial   Dial
	ctx    context.Context //nolint:containedctx // closeAll ends it, and with it the dials in progress
	cancel context.CancelFunc
	mu     sync.Mutex
	conns  map[*trackedConn]struct{}
}

// newConnTracker returns a tracker that dials with dial, or with a net.Dialer and timeout if dial is nil.
func newConnTracker(dial Dial, timeout time.Duration) *connTracker {
	if dial == nil {
		dial = (&net.Dialer{Timeout: timeout}).DialContext
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &connTracker{dial: dial, ctx: ctx, cancel: cancel, conns: make(map[*trackedConn]struct{})}
}

// Dial implements sarama's proxy.Dialer.
func (t *connTracker) Dial(network, address string) (net.Conn, error) {
	if t.ctx.Err() != nil {
		return nil, errConnsClosed
	}
	conn, err := t.dial(t.ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &trackedConn{Conn: conn, tracker: t}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		_ = conn.Close()
		return nil, errConnsClosed
	}
	t.conns[c] = struct{}{}
	return c, nil
}

// closeAll closes every connection and makes all later dials fail.
func (t *connTracker) closeAll() {
	t.cancel()
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		_ = c.Conn.Close()
	}
	clear(t.conns)
}

// backoff returns a function for sarama's retries. The function returns d, or 0 after closeAll, when every retry fails.
func (t *connTracker) backoff(d time.Duration) func(retries, maxRetries int) time.Duration {
	return func(int, int) time.Duration {
		if t.ctx.Err() != nil {
			return 0
		}
		return d
	}
}

// trackedConn is a connection that its tracker knows until it is closed.
type trackedConn struct {
	net.Conn
	tracker *connTracker
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.tracker.mu.Lock()
	delete(c.tracker.conns, c)
	c.tracker.mu.Unlock()
	return c.Conn.Close()
}
