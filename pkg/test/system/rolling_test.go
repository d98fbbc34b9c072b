package system_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/port"
)

// balancer distributes connections over the ready endpoints in turn, as a Kubernetes Service does. It balances connections,
// not requests.
type balancer struct {
	net.Listener
	mu        sync.Mutex
	endpoints []*endpoint
	next      int
}

// endpoint is an api process behind the balancer.
type endpoint struct {
	addr, admin string
	ready       atomic.Bool
	stop        chan struct{} // closed to end the polling
	done        chan struct{}
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{Listener: l}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { b.forward(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		for _, e := range b.endpoints {
			e.remove()
		}
		conns.Wait()
	})
	return b
}

// forward copies bytes in both directions until one side closes.
func (b *balancer) forward(client net.Conn) {
	defer client.Close()
	addr := b.pick()
	if addr == "" {
		return // the connection is closed, as by a Service without endpoints
	}
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer server.Close()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	_, _ = io.Copy(server, client)
	_ = server.Close()
	back.Wait()
}

func (b *balancer) pick() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.endpoints {
		b.next++
		if e := b.endpoints[b.next%len(b.endpoints)]; e.ready.Load() {
			return e.addr
		}
	}
	return ""
}

// add registers an api process and polls its readiness every 20 ms.
func (b *balancer) add(addr, admin string) *endpoint {
	e := &endpoint{addr: addr, admin: admin, stop: make(chan struct{}), done: make(chan struct{})}
	e.ready.Store(checkStatus(admin+"/readyz", http.StatusOK) == nil)
	b.mu.Lock()
	b.endpoints = append(b.endpoints, e)
	b.mu.Unlock()
	go func() {
		defer close(e.done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-e.stop:
				return
			case <-tick.C:
				e.ready.Store(checkStatus(admin+"/readyz", http.StatusOK) == nil)
			}
		}
	}()
	return e
}

func (e *endpoint) remove() {
	select {
	case <-e.stop:
	default:
		close(e.stop)
	}
	<-e.done
}

// plainClient is an HTTP client that never retries. It reuses its connection. The test cannot use package client, because
// net/http repeats a GET when a reused connection has been closed, which hides lost requests.
type plainClient struct {
	addr string
	conn net.Conn
	in   *bufio.Reader
}

// call sends one request and returns the response's body. A status other than the given one is an error.
func (c *plainClient) call(method, path, body string, status int) ([]byte, error) {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			return nil, err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	text, err := c.roundTrip(method, path, body, status)
	if err != nil {
		c.close()
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return text, nil
}

func (c *plainClient) roundTrip(method, path, body string, status int) ([]byte, error) {
	if err := c.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: shop.example\r\nContent-Length: %d\r\n", method, path, len(body))
	if body != "" {
		head += "Content-Type: application/json\r\n"
	}
	if _, err := io.WriteString(c.conn, head+"\r\n"+body); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != status {
		return nil, fmt.Errorf("%s: %s", resp.Status, text)
	}
	if resp.Close { // the server sent Connection: close
		c.close()
	}
	return text, nil
}

func (c *plainClient) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// load is a set of clients that send requests until stop is closed.
type load struct {
	stop    chan struct{}
	wg      sync.WaitGroup
	mu      sync.Mutex
	errs    []error
	reads   int
	created []int64 // ids of products with one image each
}

func (l *load) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.errs = append(l.errs, err)
	}
}

// run starts a client that calls do in a loop.
func (l *load) run(addr string, do func(*plainClient) error) {
	l.wg.Go(func() {
		c := &plainClient{addr: addr}
		defer c.close()
		for {
			select {
			case <-l.stop:
				return
			default:
				l.note(do(c))
			}
		}
	})
}

// rollingSystem is a system with two api processes behind a balancer, and two workers.
type rollingSystem struct {
	*system
	balancer  *balancer
	apis      []*running
	endpoints []*endpoint
	workers   []*running
	load      *load
}

func (s *rollingSystem) startAPI() (*running, *endpoint) {
	s.t.Helper()
	addr := port.Addr(s.t)
	r := s.start("api", "VITRINE_HTTP_ADDR="+addr, "VITRINE_SHUTDOWN_DELAY=5s")
	return r, s.balancer.add(addr, r.admin)
}

// terminate stops a program with SIGTERM, as Kubernetes does, and checks that it exits with code 0.
func (s *rollingSystem) terminate(old *running) {
	s.t.Helper()
	if err := syscall.Kill(old.PID(), syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-old.Exited():
	case <-time.After(timeout):
		s.t.Fatalf("%s does not exit", old.Name)
	}
	if state := old.State(); state != "exit status 0" {
		s.t.Errorf("%s ended with %s", old.Name, state)
	}
}

// startClients starts four clients that read a product, and two that together create a product with an image every 100 ms.
func (s *rollingSystem) startClients(user int64, first int64) {
	s.load = &load{stop: make(chan struct{})}
	addr := s.balancer.Addr().String()
	for range 4 {
		s.load.run(addr, func(c *plainClient) error {
			_, err := c.call(http.MethodGet, fmt.Sprintf("/products/%d", first), "", http.StatusOK)
			s.load.mu.Lock()
			s.load.reads++
			s.load.mu.Unlock()
			return err
		})
	}
	var number atomic.Int64
	pause := time.NewTicker(100 * time.Millisecond)
	s.t.Cleanup(pause.Stop)
	for range 2 {
		s.load.run(addr, func(c *plainClient) error {
			<-pause.C
			body := fmt.Sprintf(`{"user_id":%d,"product_name":"Chair","product_images":["%s/120x80/%d.jpg"],"product_price":"1.00"}`,
				user, s.sources.URL, number.Add(1))
			text, err := c.call(http.MethodPost, "/products", body, http.StatusCreated)
			if err != nil {
				return err
			}
			var p client.Product
			if err := json.Unmarshal(text, &p); err != nil {
				return err
			}
			s.load.mu.Lock()
			defer s.load.mu.Unlock()
			s.load.created = append(s.load.created, p.ID)
			return nil
		})
	}
}

// startWrk starts wrk, which reads a product on four connections with a delay of 5 ms between requests. The returned
// function stops it and returns its output.
func (s *rollingSystem) startWrk(id int64) (stop func() string) {
	s.t.Helper()
	script := filepath.Join(s.t.TempDir(), "delay.lua")
	if err := os.WriteFile(script, []byte("function delay() return 5 end"), 0o600); err != nil { // milliseconds
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), "wrk", "--threads", "1", "--connections", "4", "--duration", "10m",
		"--timeout", "1m", "--script", script, fmt.Sprintf("%s/products/%d", s.url, id))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start wrk, which make deps-test installs: %v", err)
	}
	return func() string {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGINT), cmd.Wait()); err != nil {
			s.t.Errorf("wrk: %v", err)
		}
		return out.String()
	}
}

// awaitProgress waits for 50 more reads and 5 more creations, so that every state of the system gets some load.
func (s *rollingSystem) awaitProgress() {
	s.t.Helper()
	counts := func() (reads, created int) {
		s.load.mu.Lock()
		defer s.load.mu.Unlock()
		return s.load.reads, len(s.load.created)
	}
	reads, created := counts()
	eventually(s.t, "the clients make progress", func() error {
		if r, c := counts(); r < reads+50 || c < created+5 {
			return errors.New("not yet")
		}
		return nil
	})
}

// countRepeated returns the number of images that were processed or downloaded more than once.
func (s *rollingSystem) countRepeated() int {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.env["VITRINE_POSTGRES_DSN"])
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(s.t.Context())
	const query = "SELECT source_url, status, fencing_token FROM images WHERE source_url LIKE $1 || '%'"
	rows, err := conn.Query(s.t.Context(), query, s.sources.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	type row struct {
		Source, Status string
		FencingToken   int
	}
	images, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		s.t.Fatal(err)
	}
	if len(images) != len(s.load.created) {
		s.t.Errorf("%d images are in the database, %d were created", len(images), len(s.load.created))
	}
	repeated := 0
	for _, img := range images {
		downloads := s.sources.Requests(strings.TrimPrefix(img.Source, s.sources.URL))
		if img.Status != "ready" || downloads < 1 || downloads > img.FencingToken {
			s.t.Errorf("%+v was downloaded %d times, want it ready, with at most one download per attempt", img, downloads)
		}
		if img.FencingToken > 1 || downloads > 1 {
			repeated++
		}
	}
	return repeated
}

func TestRollingRestart(t *testing.T) {
	t.Parallel()
	s := &rollingSystem{system: newSystem(t, nil), balancer: newBalancer(t)}
	for range 2 {
		api, endpoint := s.startAPI()
		s.apis, s.endpoints = append(s.apis, api), append(s.endpoints, endpoint)
		s.workers = append(s.workers, s.start("worker"))
	}
	s.url = "http://" + s.balancer.Addr().String()
	user := s.user()
	first := s.post(user)
	s.startClients(user, first.ID)
	stop := s.startWrk(first.ID)
	s.awaitProgress()
	transitions := 0
	for i := range 2 {
		s.startAPI()
		s.awaitProgress()
		s.terminate(s.apis[i])
		s.endpoints[i].remove()
		s.awaitProgress()
		s.start("worker")
		s.awaitProgress()
		s.terminate(s.workers[i])
		s.awaitProgress()
		transitions += 2 // partitions are reassigned when a worker joins and when one leaves
	}
	output := stop()
	close(s.load.stop)
	s.load.wg.Wait()
	// wrk prints these lines only if there were errors.
	if !regexp.MustCompile(`\b[1-9]\d* requests in`).MatchString(output) || strings.Contains(output, "Socket errors") ||
		strings.Contains(output, "Non-2xx") {
		t.Errorf("wrk lost requests or sent none:\n%s", output)
	}
	for _, err := range s.load.errs {
		t.Errorf("lost request: %v", err)
	}
	for _, id := range s.load.created {
		if got := s.awaitSettled(id); got.ImageStatus != "ready" {
			t.Errorf("product %d: %+v", id, got)
		}
	}
	// A rebalance interrupts at most the images in progress: two per worker, because each has one codec process.
	const workers, inHand = 3, 2
	repeated := s.countRepeated()
	t.Logf("%d reads, %d images, %d processed more than once", s.load.reads, len(s.load.created), repeated)
	if limit := transitions * workers * inHand; repeated > limit {
		t.Errorf("%d of %d images were processed more than once, want at most %d", repeated, len(s.load.created), limit)
	}
}
