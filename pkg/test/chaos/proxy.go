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
	ctx    context.Context //nolint:containedctx // the life of the proxy, which connections are bound to
	cancel      context.CancelFunc
	tasks      sync.WaitGroup

	mu     sync.Mutex
	server string
	down   bool
	delay  time.Duration
	unblocked   chan struct{} // closed while what is sent arrives
	commitsToLose   int           // so many COMMITs will not be answered
	commitsLost   int           // so many were not
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
		Addr: listener.Addr().String(), listener: listener, ctx: ctx, cancel: cancel,
		unblocked: make(chan struct{}), links: map[*link]struct{}{},
	}
	close(p.unblocked)
	p.tasks.Go(p.accept)
	return p, nil
}

// SetServer says where connections lead from now on.
func (p *Proxy) SetServer(server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = server
}

// Close ends the proxy and everything that goes through it.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.cancel()
	p.Cut()
	p.tasks.Wait()
}

// Cut breaks all connections, as a firewall that restarts does.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
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
	case <-p.unblocked:
		p.unblocked = make(chan struct{})
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
	p.commitsToLose = n
}

// CommitsLost is how many COMMITs were not answered so far.
func (p *Proxy) CommitsLost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.commitsLost
}

// Heal lets everything pass.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down, p.delay, p.commitsToLose = false, 0, 0
	select {
	case <-p.unblocked:
	default:
		close(p.unblocked)
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
		p.tasks.Go(func() { p.serve(client, server) })
	}
}

func (p *Proxy) serve(client net.Conn, addr string) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	server, err := dialer.DialContext(p.ctx, "tcp", addr)
	if err != nil {
		reset(client)
		return
	}
	l := &link{client, server}
	p.mu.Lock()
	p.links[l] = struct{}{}
	gone := p.down || p.ctx.Err() != nil
	p.mu.Unlock()
	if gone {
		l.reset()
	}
	broken := make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() { p.forwardRequests(l, broken) })
	both.Go(func() { p.forwardReplies(l, broken) })
	both.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// forwardRequests passes on what the client sends. broken is closed before a COMMIT whose answer is lost.
func (p *Proxy) forwardRequests(l *link, broken chan struct{}) {
	defer l.close()
	buf := make([]byte, proxyChunk)
	for {
		n, err := l.client.Read(buf)
		if n > 0 {
			if !p.waitToForward() {
				return
			}
			lost := p.losesReply(buf[:n])
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

// forwardReplies passes on what the server sends, but for what comes after broken.
func (p *Proxy) forwardReplies(l *link, broken chan struct{}) {
	defer l.close()
	buf := make([]byte, proxyChunk)
	for {
		n, err := l.server.Read(buf)
		select {
		case <-broken:
			l.reset()
			return
		default:
		}
		if n > 0 {
			if !p.waitToForward() {
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

// waitToForward waits as long as the network wants. false: the proxy has ended.
func (p *Proxy) waitToForward() bool {
	p.mu.Lock()
	open, delay := p.unblocked, p.delay
	p.mu.Unlock()
	select {
	case <-open:
	case <-p.ctx.Done():
		return false
	}
	return sleep(p.ctx, delay)
}

// commitIn finds what a client of Postgres ends a transaction with: a simple query.
func commitIn(chunk []byte) bool { return bytes.Contains(bytes.ToLower(chunk), []byte("commit\x00")) }

// losesReply reports whether the answer to this chunk is to be lost.
func (p *Proxy) losesReply(chunk []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.commitsToLose == 0 || !commitIn(chunk) {
		return false
	}
	p.commitsToLose--
	p.commitsLost++
	return true
}

// reset ends the link so that both sides are told that it broke.
func (l *link) reset() {
	reset(l.client)
	reset(l.server)
}

// close ends the link as one whose other side has ended it.
func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
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
