package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// conns is how many clients there are at a time, each with a connection that stays open and one request under way.
const conns = 32

// patience bounds the wait for one answer.
const patience = 10 * time.Second

// load is a number of clients of one server. It does as little as a client can: what it costs, it costs on both sides, and
// so brings every ratio nearer to 1. So it is not package client's.
type load []*rawClient

type rawClient struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
	answer  fasthttp.Response
}

// requestTail is what follows the path.
const requestTail = " HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: application/json\r\n\r\n"

// newLoad connects n clients.
func newLoad(tb testing.TB, addr string, n int) load {
	tb.Helper()
	var l load
	for range n {
		conn, err := net.Dial("tcp", addr)
		must(tb, err)
		tb.Cleanup(func() { must(tb, conn.Close()) })
		l = append(l, &rawClient{conn: conn, in: bufio.NewReaderSize(conn, 16<<10)})
	}
	return l
}

// run asks for n paths, made by path from the request's number.
func (l load) run(n int, path func(i int) string) (sample, error) {
	return abreast(len(l), n, func(worker, i int) error {
		_, err := l[worker].get(path(i))
		return err
	})
}

// get returns the body of a 200, until the next call.
func (c *rawClient) get(path string) ([]byte, error) {
	c.request = append(c.request[:0], "GET "...)
	c.request = append(c.request, path...)
	c.request = append(c.request, requestTail...)
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return nil, fmt.Errorf("ask for %s: %w", path, err)
	}
	if err := c.answer.Read(c.in); err != nil {
		return nil, fmt.Errorf("read answer of %s: %w", path, err)
	}
	if status := c.answer.StatusCode(); status != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d: %s", path, status, c.answer.Body())
	}
	return c.answer.Body(), nil
}

// sameAnswers fails unless our server's answer is the bare one's, byte for byte.
func sameAnswers(tb testing.TB, r *reading, path, barePath string) {
	tb.Helper()
	got, err := r.ours[0].get(path)
	must(tb, err)
	want, err := r.other[0].get(barePath)
	must(tb, err)
	if len(want) < 1000 || !bytes.Equal(got, want) {
		tb.Errorf("%s: ours is\n%s\n%s:\n%s", path, got, barePath, want)
	}
}
