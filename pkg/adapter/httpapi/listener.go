package httpapi

import (
	"io"
	"net"
	"sync"
	"time"
)

// lastWord is how long a silent connection stays open once a drain has begun: its first request may be on the way or unread.
const lastWord = 250 * time.Millisecond

// listener tracks the silent connections, which have not sent a byte. Browsers open some in advance; fasthttp takes them for
// busy, so a shutdown would wait for each until its read timeout.
type listener struct {
	net.Listener
	once sync.Once
	err  error

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
		return nil, err //nolint:wrapcheck // fasthttp compares it
	}
	c := &conn{Conn: raw, from: l, silent: true}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent[c] = struct{}{}
	return c, nil
}

// Close closes the listener. Closing it again is no error, because a drain closes it before fasthttp does.
func (l *listener) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}

// closeSilent closes every connection that stays silent for lastWord.
func (l *listener) closeSilent() {
	l.mu.Lock()
	all := l.silent
	l.silent = map[*conn]struct{}{}
	l.mu.Unlock()
	for c := range all {
		c.hurry(time.Now().Add(lastWord))
	}
}

func (l *listener) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.silent, c)
}

// conn is a connection that notifies its listener of its first byte and of its end.
type conn struct {
	net.Conn
	from *listener

	mu     sync.Mutex
	silent bool
	wanted time.Time // the deadline that fasthttp set
	last   time.Time // the deadline for the first byte, after a hurry
}

// hurry ends the connection unless it sends a byte by then.
func (c *conn) hurry(by time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent {
		c.last = by
		_ = c.Conn.SetReadDeadline(by) // it fails on a closed connection alone
	}
}

// SetReadDeadline implements net.Conn. While the connection is silent, a hurry's deadline stays in force.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = t
	if c.silent && !c.last.IsZero() {
		t = c.last
	}
	return c.Conn.SetReadDeadline(t) //nolint:wrapcheck // a net.Conn's errors are its own
}

// Read reads, and records the first byte. A hurried connection that stays silent ends as if its client had closed it.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	first, hurried := c.silent && n > 0, !c.last.IsZero()
	silent := c.silent && n == 0
	if first {
		c.silent = false
		if hurried {
			_ = c.Conn.SetReadDeadline(c.wanted) // the rest may take its time
		}
	}
	c.mu.Unlock()
	switch {
	case first:
		c.from.forget(c)
	case silent && hurried && err != nil:
		return 0, io.EOF
	}
	return n, err //nolint:wrapcheck // a net.Conn's errors are its own
}

// Close closes the connection.
func (c *conn) Close() error {
	c.from.forget(c)
	return c.Conn.Close() //nolint:wrapcheck // a net.Conn's errors are its own
}
