package httpapi

import (
	"io"
	"net"
	"sync"
	"time"
)

// silentTimeout is how long a silent connection stays open after a drain has started: its first request may be under way.
const silentTimeout = 250 * time.Millisecond

// listener tracks the silent connections, which have not sent a byte. Browsers open some in advance; fasthttp takes them for
// busy, so a shutdown would wait for each until its read timeout.
type listener struct {
	net.Listener
	closeOnce sync.Once
	closeErr  error

	mu     sync.Mutex
	silent map[*conn]struct{}
}

func newListener(ln net.Listener) *listener {
	return &listener{Listener: ln, silent: map[*conn]struct{}{}}
}

// Accept waits for a connection and tracks it.
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, listener: l, silent: true}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent[c] = struct{}{}
	return c, nil
}

// Close closes the listener. Closing it again is no error, because a drain closes it before fasthttp does.
func (l *listener) Close() error {
	l.closeOnce.Do(func() { l.closeErr = l.Listener.Close() })
	return l.closeErr
}

// closeSilent gives every connection that has sent nothing yet silentTimeout to send its first byte.
func (l *listener) closeSilent() {
	l.mu.Lock()
	all := l.silent
	l.silent = map[*conn]struct{}{}
	l.mu.Unlock()
	for c := range all {
		c.setFirstByteDeadline(time.Now().Add(silentTimeout))
	}
}

func (l *listener) untrack(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.silent, c)
}

// conn is a connection that notifies its listener of its first byte and of its end.
type conn struct {
	net.Conn
	listener *listener

	mu                sync.Mutex
	silent            bool
	readDeadline      time.Time // the deadline that fasthttp set
	firstByteDeadline time.Time // set by setFirstByteDeadline
}

// setFirstByteDeadline ends the connection unless it sends a byte before by.
func (c *conn) setFirstByteDeadline(by time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent {
		c.firstByteDeadline = by
		_ = c.Conn.SetReadDeadline(by) // it fails only on a closed connection
	}
}

// SetReadDeadline implements net.Conn. While the connection is silent, the deadline for its first byte stays in force.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readDeadline = t
	if c.silent && !c.firstByteDeadline.IsZero() {
		t = c.firstByteDeadline
	}
	return c.Conn.SetReadDeadline(t)
}

// Read reads, and records the first byte. A connection that misses the deadline for its first byte ends as if its
// client had closed it.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	first, limited := c.silent && n > 0, !c.firstByteDeadline.IsZero()
	silent := c.silent && n == 0
	if first {
		c.silent = false
		if limited {
			_ = c.Conn.SetReadDeadline(c.readDeadline) // the rest of the request has the ordinary timeout
		}
	}
	c.mu.Unlock()
	switch {
	case first:
		c.listener.untrack(c)
	case silent && limited && err != nil:
		return 0, io.EOF
	}
	return n, err
}

// Close closes the connection.
func (c *conn) Close() error {
	c.listener.untrack(c)
	return c.Conn.Close()
}
