package httpapi

import (
	"net"
	"sync"
	"sync/atomic"
)

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
	c := &conn{Conn: raw, from: l}
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

// closeSilent closes every connection that has not said a word.
func (l *listener) closeSilent() {
	l.mu.Lock()
	all := l.silent
	l.silent = map[*conn]struct{}{}
	l.mu.Unlock()
	for c := range all {
		if c.state.CompareAndSwap(silent, dropped) {
			_ = c.Conn.Close() // there is nobody to tell
		}
	}
}

func (l *listener) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.silent, c)
}

// The states of a connection. From silent there is one way, and only one side can take it: the server underneath panics if
// a connection is closed while it works on a request of it.
const (
	silent int32 = iota
	heard
	dropped
)

// conn is a connection that tells its listener when it has spoken or is gone.
type conn struct {
	net.Conn
	from  *listener
	state atomic.Int32
}

// Read reads, and notes the first byte.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.state.Load() != heard {
		if !c.state.CompareAndSwap(silent, heard) {
			return 0, net.ErrClosed // it spoke just when it was dropped
		}
		c.from.forget(c)
	}
	return n, err //nolint:wrapcheck // a net.Conn's errors are its own
}

// Close closes the connection.
func (c *conn) Close() error {
	c.from.forget(c)
	return c.Conn.Close() //nolint:wrapcheck // a net.Conn's errors are its own
}
