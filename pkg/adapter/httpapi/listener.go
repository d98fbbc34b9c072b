package httpapi

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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

	proxies   proxies // their addresses may have any number of connections
	perClient int     // the largest number of connections of another address
	refused   prometheus.Counter

	mu     sync.Mutex
	silent map[*conn]struct{}
	peers  map[netip.Addr]int // the number of open connections; proxies are not counted
}

func newListener(ln net.Listener, trusted proxies, perClient int, refused prometheus.Counter) *listener {
	return &listener{
		Listener: ln, proxies: trusted, perClient: perClient, refused: refused,
		silent: map[*conn]struct{}{}, peers: map[netip.Addr]int{},
	}
}

// Accept waits for a connection and tracks it. It closes a connection of an address that has perClient connections.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: raw, listener: l, peer: addrOf(raw.RemoteAddr()), silent: true}
		if l.track(c) {
			return c, nil
		}
		l.refused.Inc()
		_ = raw.Close() // the client is gone or not
	}
}

// addrOf returns the IP address of a network address; the zero value if it has none.
func addrOf(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}

// track records a connection, unless its address has too many.
func (l *listener) track(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.counted = !l.proxies.contain(c.peer); c.counted {
		if l.peers[c.peer] >= l.perClient {
			return false
		}
		l.peers[c.peer]++
	}
	l.silent[c] = struct{}{}
	return true
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

// heard records that a connection is not silent any more.
func (l *listener) heard(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.silent, c)
}

// untrack undoes track. It may be called again.
func (l *listener) untrack(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.silent, c)
	if c.counted {
		c.counted = false
		if l.peers[c.peer]--; l.peers[c.peer] == 0 {
			delete(l.peers, c.peer)
		}
	}
}

// conn is a connection that notifies its listener of its first byte and of its end.
type conn struct {
	net.Conn
	listener *listener
	peer     netip.Addr
	counted  bool // among the connections of peer; by the listener's mu

	lingering atomic.Bool // Close reads what the client still sends

	mu                sync.Mutex
	silent            bool
	readDeadline      time.Time // the deadline that fasthttp set
	firstByteDeadline time.Time // set by setFirstByteDeadline

	reserved []reservation // memory of the request that is being handled
	memory   *memory       // of reserved
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
		c.listener.heard(c)
	case silent && limited && err != nil:
		return 0, io.EOF
	}
	return n, err
}

// reservation is memory that is reserved for a client.
type reservation struct {
	client netip.Addr
	bytes  int64
}

// addReservation records memory that is to be released when the response is written.
func (c *conn) addReservation(m *memory, r reservation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memory, c.reserved = m, append(c.reserved, r)
}

// reservedBytes returns how many bytes are reserved for the request that is being handled.
func (c *conn) reservedBytes() (n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.reserved {
		n += r.bytes
	}
	return n
}

// releaseMemory releases the memory of a request, whose response is written.
func (c *conn) releaseMemory() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.reserved {
		c.memory.release(r.client, r.bytes)
	}
	c.reserved = c.reserved[:0]
}

// Close closes the connection.
func (c *conn) Close() error {
	c.listener.untrack(c)
	c.releaseMemory()
	if c.lingering.Load() {
		c.linger()
	}
	return c.Conn.Close()
}

// linger ends our half of the connection and reads the rest of what the client sends, for a short time. If a connection is
// closed with unread bytes, the kernel resets it, and the client does not see the response.
func (c *conn) linger() {
	const silence, maxTime, maxBytes = 200 * time.Millisecond, 2 * time.Second, 8 << 20
	if half, ok := c.Conn.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	end, buf := time.Now().Add(maxTime), make([]byte, 4<<10)
	for read := 0; read < maxBytes; {
		deadline := time.Now().Add(silence)
		if deadline.After(end) {
			deadline = end
		}
		if c.Conn.SetReadDeadline(deadline) != nil {
			return
		}
		n, err := c.Conn.Read(buf)
		if err != nil {
			return
		}
		read += n
	}
}
