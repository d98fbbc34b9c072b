package httpapi

import (
	"io"
	"net"
	"sync"
	"time"
)

// silentTimeout is how long a silent connection stays open after a drain has started, because its first request may
// already be on the network.
const silentTimeout = 250 * time.Millisecond

// listener tracks silent connections: those on which the client has not sent a byte. Browsers open such connections in
// advance. fasthttp counts them as busy, so without the listener a shutdown would wait for the read timeout of each.
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

// Close closes the listener. A second call returns the result of the first, because a drain closes the listener before
// fasthttp does.
func (l *listener) Close() error {
	l.closeOnce.Do(func() { l.closeErr = l.Listener.Close() })
	return l.closeErr
}

// closeSilent limits the time until the first byte of every silent connection to silentTimeout.
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

// setFirstByteDeadline makes a silent connection end at the time by, unless the client sends a byte before.
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

// Read implements net.Conn. It also records the first byte. If that byte misses its deadline, Read returns io.EOF, as if
// the client had closed the connection.
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
