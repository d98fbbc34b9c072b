package postgres_test

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy is between a pool and the server, and breaks a connection at a statement: before the server receives it, or after
// the server has replied and before the pool receives the reply.
type proxy struct {
	t        *testing.T
	server   string
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex
	trigger []byte // nil: nothing breaks
	reply   bool   // let the server reply before the connection breaks
	conns   []net.Conn
}

// throughProxy returns a proxy and the DSN that connects through it.
func throughProxy(t *testing.T, dsn string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatalf("parse dsn: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	p := &proxy{t: t, server: u.Host, listener: listener}
	p.wg.Go(p.accept)
	t.Cleanup(p.stop)
	u.Host = listener.Addr().String()
	return p, u.String()
}

// breakAt breaks the next connection that sends text.
func (p *proxy) breakAt(text string, reply bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trigger, p.reply = []byte(text), reply
}

func (p *proxy) stop() {
	_ = p.listener.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		p.wg.Go(func() { p.forward(client, server) })
	}
}

// forward copies bytes in both directions until a chunk contains the trigger.
func (p *proxy) forward(client, server net.Conn) {
	broken := make(chan struct{})
	p.wg.Go(func() {
		defer func() { _ = client.Close() }()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			select {
			case <-broken: // this is the reply
				return
			default:
			}
			if _, werr := client.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	})
	defer func() { _ = server.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		switch hit, reply := p.hit(buf[:n]); {
		case hit && reply:
			close(broken)
			_, _ = server.Write(buf[:n])
			_, _ = io.Copy(io.Discard, client) // until the other direction has closed it
			return
		case hit:
			_ = client.Close()
			return
		}
		if _, werr := server.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// hit reports once whether chunk contains the trigger.
func (p *proxy) hit(chunk []byte) (hit, reply bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trigger == nil || !bytes.Contains(chunk, p.trigger) {
		return false, false
	}
	p.trigger = nil
	return true, p.reply
}
