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

const patience = 20 * time.Second

// echo answers each line with "got LINE", and tells done of each that it has heard.
func echo(t *testing.T, heard chan<- string) string {
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
					heard <- line
					fmt.Fprintf(conn, "got %s", line)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// talk is a connection through a proxy.
type talk struct {
	net.Conn
	t     *testing.T
	lines *bufio.Reader
}

func dial(t *testing.T, p *chaos.Proxy) *talk {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &talk{conn, t, bufio.NewReader(conn)}
}

// say sends a line and returns the answer, "" if the connection broke.
func (c *talk) say(line string) string {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, "%s\n", line); err != nil {
		return ""
	}
	return c.hear()
}

func (c *talk) hear() string {
	c.t.Helper()
	answer, err := c.lines.ReadString('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("nothing came, and nothing broke")
	}
	return strings.TrimSpace(answer)
}

// refused says whether a new connection leads nowhere.
func refused(t *testing.T, p *chaos.Proxy) bool {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		return true
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return (&talk{conn, t, bufio.NewReader(conn)}).say("hello") == ""
}

func proxied(t *testing.T) (*chaos.Proxy, chan string) {
	t.Helper()
	p, err := chaos.NewProxy()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	heard := make(chan string, 100)
	p.SetServer(echo(t, heard))
	return p, heard
}

func TestAProxyPassesOn(t *testing.T) {
	t.Parallel()
	p, _ := proxied(t)
	if got := dial(t, p).say("hello"); got != "got hello" {
		t.Errorf("got %q", got)
	}
	p.Delay(time.Millisecond)
	if got := dial(t, p).say("hello"); got != "got hello" {
		t.Errorf("got %q, later", got)
	}
}

func TestACutBreaksWhatIsThereAndNothingElse(t *testing.T) {
	t.Parallel()
	p, _ := proxied(t)
	c := dial(t, p)
	c.say("hello")
	p.Cut()
	if got := c.say("hello"); got != "" {
		t.Errorf("got %q through a connection that was cut", got)
	}
	if got := dial(t, p).say("hello"); got != "got hello" {
		t.Errorf("got %q through a new one", got)
	}
}

func TestWhatIsDownLetsNobodyIn(t *testing.T) {
	t.Parallel()
	p, _ := proxied(t)
	c := dial(t, p)
	c.say("hello")
	p.Down()
	if got := c.say("hello"); got != "" {
		t.Errorf("got %q through a connection from before", got)
	}
	if !refused(t, p) {
		t.Error("somebody got in")
	}
	p.Heal()
	if got := dial(t, p).say("hello"); got != "got hello" {
		t.Errorf("got %q after it was healed", got)
	}
}

func TestWhatIsHeldArrivesLater(t *testing.T) {
	t.Parallel()
	p, heard := proxied(t)
	c := dial(t, p)
	c.say("before")
	<-heard
	p.Hold()
	p.Hold() // twice is once
	if _, err := io.WriteString(c, "during\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case line := <-heard:
		t.Errorf("%q passed", line)
	default:
	}
	p.Heal()
	if got := c.hear(); got != "got during" {
		t.Errorf("got %q", got)
	}
}

func TestALostCommitIsDoneAndNotAnswered(t *testing.T) {
	t.Parallel()
	p, heard := proxied(t)
	p.LoseCommits(1)
	c := dial(t, p)
	if got := c.say("select"); got != "got select" {
		t.Errorf("got %q", got)
	}
	<-heard
	if got := c.say("Q....commit\x00"); got != "" {
		t.Errorf("the answer arrived: %q", got)
	}
	if got := <-heard; got != "Q....commit\x00\n" {
		t.Errorf("the server got %q", got)
	}
	if got := dial(t, p).say("commit\x00"); got != "got commit\x00" {
		t.Errorf("the next one was answered with %q", got)
	}
	if p.CommitsLost() != 1 {
		t.Errorf("%d were lost", p.CommitsLost())
	}
}

func TestAProxyWithoutAServerLetsNobodyIn(t *testing.T) {
	t.Parallel()
	p, err := chaos.NewProxy()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if !refused(t, p) {
		t.Error("somebody got in")
	}
	p.SetServer("127.0.0.1:1")
	if !refused(t, p) {
		t.Error("somebody got in")
	}
}
