package system_test

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// cutter forwards TCP connections to a server until it is cut.
type cutter struct {
	net.Listener
	server string
	wg     sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

// throughCutter returns a cutter for the server of a URL, and the URL through it.
func throughCutter(t *testing.T, server string) (*cutter, string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{Listener: l, server: u.Host, conns: map[net.Conn]bool{}}
	c.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.forward(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		c.setCut(true)
		c.wg.Wait()
	})
	u.Host = l.Addr().String()
	return c, u.String()
}

// setCut closes all connections and refuses new ones, or ends this.
func (c *cutter) setCut(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	for conn := range c.conns {
		if cut {
			_ = conn.Close()
		}
	}
}

// add registers a connection, and closes it if the cutter is cut.
func (c *cutter) add(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[conn] = true
	if c.cut {
		_ = conn.Close()
	}
}

func (c *cutter) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
	_ = conn.Close()
}

// forward copies bytes in both directions until one side closes.
func (c *cutter) forward(client net.Conn) {
	c.add(client)
	defer c.remove(client)
	server, err := net.Dial("tcp", c.server)
	if err != nil {
		return
	}
	c.add(server)
	defer c.remove(server)
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	_, _ = io.Copy(server, client)
	_ = server.Close()
	back.Wait()
}
