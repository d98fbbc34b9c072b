package httpapi

import (
	"io"
	"net"
	"sync"
	"time"
)

// lastWord is how long a connection that has not said a word is listened to once a drain has begun: its first request may be
// on the way, or lie here unread.
const lastWord = 250 * time.Millisecond

// listener remembers the connections that have not said a word. Browsers open some in advance; the server underneath takes
// them for busy, so a shutdown would wait for each until its read timeout.
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

// Accept waits for a connection and remembers it.
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // the server underneath compares it
	}
	c := &conn{Conn: raw, from: l, silent: true}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent[c] = struct{}{}
	return c, nil
}

// Close closes the listener; again is no error, because a drain closes it before the server underneath does.
func (l *listener) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}

// closeSilent has every connection that has not said a word, and says none soon, be closed.
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

// conn is a connection that tells its listener when it has spoken or is gone.
type conn struct {
	net.Conn
	from *listener

	mu     sync.Mutex
	silent bool
	asked  time.Time // the deadline that the server underneath wants
	last   time.Time // by when it has to speak, after a hurry
}

// hurry ends the connection unless it speaks by then.
func (c *conn) hurry(by time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent {
		c.last = by
		_ = c.Conn.SetReadDeadline(by) // it fails on a closed connection alone
	}
}

// SetReadDeadline implements net.Conn. While the connection is silent a hurry's deadline stands.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = t
	if c.silent && !c.last.IsZero() {
		t = c.last
	}
	return c.Conn.SetReadDeadline(t) //nolint:wrapcheck // a net.Conn's errors are its own
}

// Read reads, and notes the first byte. One that was hurried and said nothing has ended as if its client had closed it.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	first, hurried := c.silent && n > 0, !c.last.IsZero()
	silent := c.silent && n == 0
	if first {
		c.silent = false
		if hurried {
			_ = c.Conn.SetReadDeadline(c.asked) // the rest may take its time
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
