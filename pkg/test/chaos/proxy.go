package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// proxyChunk is the size of the proxy's read buffers, in bytes.
const proxyChunk = 32 << 10

// Proxy forwards TCP connections of programs to a server, and injects network faults. It is safe for concurrent use.
type Proxy struct {
	Addr string // listen address

	listener net.Listener
	ctx      context.Context //nolint:containedctx // lifetime of the proxy and of all its connections
	cancel   context.CancelFunc
	tasks    sync.WaitGroup

	mu            sync.Mutex
	server        string
	down          bool
	delay         time.Duration
	unblocked     chan struct{} // closed unless Hold blocks the traffic
	commitsToLose int           // replies to so many more COMMITs are dropped
	commitsLost   int           // dropped so far
	links         map[*link]struct{}
}

// link is one connection through the proxy.
type link struct{ client, server net.Conn }

// NewProxy listens on a free port of the loopback interface. It resets connections until SetServer is called.
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

// SetServer sets the address to which new connections are forwarded.
func (p *Proxy) SetServer(server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = server
}

// Close stops the proxy and resets its connections.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.cancel()
	p.Cut()
	p.tasks.Wait()
}

// Cut resets all open connections. New ones are accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
	}
}

// Down resets all connections, open ones and new ones, until Heal.
func (p *Proxy) Down() {
	p.mu.Lock()
	p.down = true
	p.mu.Unlock()
	p.Cut()
}

// Hold blocks all traffic until Heal. Connections stay open, and data that was sent meanwhile arrives after Heal.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.unblocked:
		p.unblocked = make(chan struct{})
	default:
	}
}

// Delay delays each chunk by d, until Heal.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// LoseCommits makes the proxy forward each of the next n COMMITs and reset its connection instead of forwarding the reply,
// until Heal.
func (p *Proxy) LoseCommits(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commitsToLose = n
}

// CommitsLost returns the number of COMMITs whose reply was dropped so far.
func (p *Proxy) CommitsLost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.commitsLost
}

// Heal ends all faults.
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
	closed := p.down || p.ctx.Err() != nil
	p.mu.Unlock()
	if closed {
		l.reset()
	}
	dropReply := make(chan struct{})
	var directions sync.WaitGroup
	directions.Go(func() { p.forwardRequests(l, dropReply) })
	directions.Go(func() { p.forwardReplies(l, dropReply) })
	directions.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// forwardRequests forwards data from the client. It closes dropReply before it forwards a COMMIT whose reply is to be lost.
func (p *Proxy) forwardRequests(l *link, dropReply chan struct{}) {
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
				close(dropReply)
			}
			if _, werr := l.server.Write(buf[:n]); werr != nil || lost {
				if lost { // forwardReplies resets the link once the server has replied
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

// forwardReplies forwards data from the server, until dropReply is closed.
func (p *Proxy) forwardReplies(l *link, dropReply chan struct{}) {
	defer l.close()
	buf := make([]byte, proxyChunk)
	for {
		n, err := l.server.Read(buf)
		select {
		case <-dropReply:
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

// waitToForward waits for the end of Hold and for the delay. It returns false if the proxy has been closed.
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

// commitIn reports whether chunk contains a COMMIT, which Postgres clients send as a simple query.
func commitIn(chunk []byte) bool { return bytes.Contains(bytes.ToLower(chunk), []byte("commit\x00")) }

// losesReply reports whether the reply to this chunk is to be dropped.
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

// reset closes the link with RST to both sides.
func (l *link) reset() {
	reset(l.client)
	reset(l.server)
}

// close closes the link normally, as if the other side had closed it.
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

// sleep waits for d. It returns false if ctx ends first.
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
