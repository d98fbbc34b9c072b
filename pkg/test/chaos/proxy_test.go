package main_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	chaos "vitrine.io/pkg/test/chaos"
)

const timeout = 20 * time.Second

// echo starts a server that replies to each line with "got LINE" and sends the line to received.
func echo(t *testing.T, received chan<- string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				lines := bufio.NewReader(conn)
				for {
					line, err := lines.ReadString('\n')
					if err != nil {
						return
					}
					received <- line
					fmt.Fprintf(conn, "got %s", line)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// lineConn is a connection through a proxy.
type lineConn struct {
	net.Conn
	t     *testing.T
	lines *bufio.Reader
}

func dial(t *testing.T, p *chaos.Proxy) *lineConn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	return &lineConn{conn, t, bufio.NewReader(conn)}
}

// request sends a line and returns the reply, or "" if the connection was closed.
func (c *lineConn) request(line string) string {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, "%s\n", line); err != nil {
		return ""
	}
	return c.reply()
}

func (c *lineConn) reply() string {
	c.t.Helper()
	reply, err := c.lines.ReadString('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("no reply, and the connection is open")
	}
	return strings.TrimSpace(reply)
}

// refused reports whether a new connection is closed without a reply.
func refused(t *testing.T, p *chaos.Proxy) bool {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		return true
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	return (&lineConn{conn, t, bufio.NewReader(conn)}).request("hello") == ""
}

func startProxy(t *testing.T) (*chaos.Proxy, chan string) {
	t.Helper()
	p, err := chaos.NewProxy()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	received := make(chan string, 100)
	p.SetServer(echo(t, received))
	return p, received
}

func TestProxy(t *testing.T) {
	t.Parallel()
	t.Run("forwards", testProxyForwards)
	t.Run("cut", testProxyCut)
	t.Run("down", testProxyDown)
	t.Run("hold", testProxyHold)
	t.Run("lose_commits", testProxyLoseCommits)
	t.Run("no_server", testProxyNoServer)
}

func testProxyForwards(t *testing.T) {
	t.Parallel()
	p, _ := startProxy(t)
	if got := dial(t, p).request("hello"); got != "got hello" {
		t.Errorf("got %q", got)
	}
	p.Delay(time.Millisecond)
	if got := dial(t, p).request("hello"); got != "got hello" {
		t.Errorf("with delay: got %q", got)
	}
}

func testProxyCut(t *testing.T) {
	t.Parallel()
	p, _ := startProxy(t)
	c := dial(t, p)
	c.request("hello")
	p.Cut()
	if got := c.request("hello"); got != "" {
		t.Errorf("after Cut: got %q on an open connection", got)
	}
	if got := dial(t, p).request("hello"); got != "got hello" {
		t.Errorf("after Cut: got %q on a new connection", got)
	}
}

func testProxyDown(t *testing.T) {
	t.Parallel()
	p, _ := startProxy(t)
	c := dial(t, p)
	c.request("hello")
	p.Down()
	if got := c.request("hello"); got != "" {
		t.Errorf("after Down: got %q on an open connection", got)
	}
	if !refused(t, p) {
		t.Error("a new connection was accepted")
	}
	p.Heal()
	if got := dial(t, p).request("hello"); got != "got hello" {
		t.Errorf("after Heal: got %q", got)
	}
}

func testProxyHold(t *testing.T) {
	t.Parallel()
	p, received := startProxy(t)
	c := dial(t, p)
	c.request("before")
	<-received
	p.Hold()
	p.Hold() // has no further effect
	if _, err := io.WriteString(c, "during\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case line := <-received:
		t.Errorf("%q was forwarded", line)
	default:
	}
	p.Heal()
	if got := c.reply(); got != "got during" {
		t.Errorf("got %q", got)
	}
}

func testProxyLoseCommits(t *testing.T) {
	t.Parallel()
	p, received := startProxy(t)
	p.LoseCommits(1)
	c := dial(t, p)
	if got := c.request("select"); got != "got select" {
		t.Errorf("got %q", got)
	}
	<-received
	if got := c.request("Q....commit\x00"); got != "" {
		t.Errorf("the reply arrived: %q", got)
	}
	if got := <-received; got != "Q....commit\x00\n" {
		t.Errorf("the server got %q", got)
	}
	if got := dial(t, p).request("commit\x00"); got != "got commit\x00" {
		t.Errorf("the next COMMIT got %q", got)
	}
	if p.CommitsLost() != 1 {
		t.Errorf("%d COMMITs were lost, want 1", p.CommitsLost())
	}
}

func testProxyNoServer(t *testing.T) {
	t.Parallel()
	p, err := chaos.NewProxy()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if !refused(t, p) {
		t.Error("a new connection was accepted")
	}
	p.SetServer("127.0.0.1:1")
	if !refused(t, p) {
		t.Error("a new connection was accepted")
	}
}
