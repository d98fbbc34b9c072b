package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// proxyChunk is how much is passed on at a time, in bytes.
const proxyChunk = 32 << 10

// Proxy stands between programs and a server, and does to their connections what networks do. It may be used concurrently.
type Proxy struct {
	Addr string // where it listens

	listener net.Listener
	ended    context.Context //nolint:containedctx // the life of the proxy, which connections are bound to
	end      context.CancelFunc
	all      sync.WaitGroup

	mu     sync.Mutex
	server string
	down   bool
	delay  time.Duration
	open   chan struct{} // closed while what is sent arrives
	lose   int           // so many COMMITs will not be answered
	lost   int           // so many were not
	links  map[*link]struct{}
}

// link is one connection through the proxy.
type link struct{ client, server net.Conn }

// NewProxy listens on a free port. It leads nowhere before To is called.
func NewProxy() (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for a proxy: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Proxy{
		Addr: listener.Addr().String(), listener: listener, ended: ctx, end: cancel,
		open: make(chan struct{}), links: map[*link]struct{}{},
	}
	close(p.open)
	p.all.Go(p.accept)
	return p, nil
}

// To says where connections lead from now on.
func (p *Proxy) To(server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = server
}

// Close ends the proxy and everything that goes through it.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.end()
	p.Cut()
	p.all.Wait()
}

// Cut breaks all connections, as a firewall that restarts does.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cut()
	}
}

// Down breaks all connections and lets nobody in until Heal.
func (p *Proxy) Down() {
	p.mu.Lock()
	p.down = true
	p.mu.Unlock()
	p.Cut()
}

// Hold lets nothing pass until Heal, and breaks nothing: what is under way arrives late.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default:
	}
}

// Delay makes everything arrive later, until Heal.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// LoseCommits breaks the connection of each of the next n COMMITs between the server's having done it and the answer, until
// Heal.
func (p *Proxy) LoseCommits(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose = n
}

// Lost is how many COMMITs were not answered so far.
func (p *Proxy) Lost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Heal lets everything pass.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down, p.delay, p.lose = false, 0, 0
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		server, down := p.server, p.down
		p.mu.Unlock()
		if down || server == "" {
			reset(client)
			continue
		}
		p.all.Go(func() { p.serve(client, server) })
	}
}

func (p *Proxy) serve(client net.Conn, addr string) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	server, err := dialer.DialContext(p.ended, "tcp", addr)
	if err != nil {
		reset(client)
		return
	}
	l := &link{client, server}
	p.mu.Lock()
	p.links[l] = struct{}{}
	gone := p.down || p.ended.Err() != nil
	p.mu.Unlock()
	if gone {
		l.cut()
	}
	broken := make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() { p.ask(l, broken) })
	both.Go(func() { p.answer(l, broken) })
	both.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// ask passes on what the client sends. broken is closed before a COMMIT whose answer is lost.
func (p *Proxy) ask(l *link, broken chan struct{}) {
	defer l.end()
	buf := make([]byte, proxyChunk)
	for {
		n, err := l.client.Read(buf)
		if n > 0 {
			if !p.pass() {
				return
			}
			lost := p.commits(buf[:n])
			if lost {
				close(broken)
			}
			if _, werr := l.server.Write(buf[:n]); werr != nil || lost {
				if lost { // the other direction ends the link once the server has answered
					_, _ = l.client.Read(buf)
				}
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// answer passes on what the server sends, but for what comes after broken.
func (p *Proxy) answer(l *link, broken chan struct{}) {
	defer l.end()
	buf := make([]byte, proxyChunk)
	for {
		n, err := l.server.Read(buf)
		select {
		case <-broken:
			l.cut()
			return
		default:
		}
		if n > 0 {
			if !p.pass() {
				return
			}
			if _, werr := l.client.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits as long as the network wants. false: the proxy has ended.
func (p *Proxy) pass() bool {
	p.mu.Lock()
	open, delay := p.open, p.delay
	p.mu.Unlock()
	select {
	case <-open:
	case <-p.ended.Done():
		return false
	}
	return pause(p.ended, delay)
}

// commitIn finds what a client of Postgres ends a transaction with: a simple query.
func commitIn(chunk []byte) bool { return bytes.Contains(bytes.ToLower(chunk), []byte("commit\x00")) }

// commits reports whether the answer to this chunk is to be lost.
func (p *Proxy) commits(chunk []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lose == 0 || !commitIn(chunk) {
		return false
	}
	p.lose--
	p.lost++
	return true
}

// cut ends the link so that both sides are told that it broke.
func (l *link) cut() {
	reset(l.client)
	reset(l.server)
}

// end ends the link as one whose other side has ended it.
func (l *link) end() {
	_ = l.client.Close()
	_ = l.server.Close()
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// pause waits for d and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
