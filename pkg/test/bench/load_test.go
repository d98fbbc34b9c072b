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

// conns is the number of concurrent clients, each with a persistent connection and one request at a time.
const conns = 32

// timeout is the maximum of one request.
const timeout = 10 * time.Second

// load is a number of clients of one server. Their cost is part of both sides and moves every ratio towards 1, so they do as
// little as possible. Therefore they do not use package client.
type load []*rawClient

type rawClient struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
	resp    fasthttp.Response
}

// requestTail is the part of a request after the path.
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

// run requests n paths, which path returns for the index of the request.
func (l load) run(n int, path func(i int) string) (sample, error) {
	return runConcurrently(len(l), n, func(worker, i int) error {
		_, err := l[worker].get(path(i))
		return err
	})
}

// get returns the body of a 200 response, which is valid until the next call. Another status is an error.
func (c *rawClient) get(path string) ([]byte, error) {
	c.request = append(c.request[:0], "GET "...)
	c.request = append(c.request, path...)
	c.request = append(c.request, requestTail...)
	if err := c.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return nil, fmt.Errorf("request %s: %w", path, err)
	}
	if err := c.resp.Read(c.in); err != nil {
		return nil, fmt.Errorf("read response of %s: %w", path, err)
	}
	if status := c.resp.StatusCode(); status != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d: %s", path, status, c.resp.Body())
	}
	return c.resp.Body(), nil
}

// sameResponses fails the test unless both servers send the same body.
func sameResponses(tb testing.TB, r *getPair, path, barePath string) {
	tb.Helper()
	got, err := r.ours[0].get(path)
	must(tb, err)
	want, err := r.other[0].get(barePath)
	must(tb, err)
	if len(want) < 1000 || !bytes.Equal(got, want) {
		tb.Errorf("%s: ours is\n%s\n%s:\n%s", path, got, barePath, want)
	}
}
