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

// balancer sends connections to the endpoints that are ready, in turns, as a Service does: it looks at nothing but
// readiness, knows nothing of requests, and a connection stays where it is.
type balancer struct {
	net.Listener
	mu        sync.Mutex
	endpoints []*endpoint
	next      int
}

// endpoint is an api behind the balancer. It is out before it has been asked for the first time.
type endpoint struct {
	addr, admin string
	ready       atomic.Bool
	asked       chan struct{} // closed to end the asking
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
			conns.Go(func() { b.carry(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		for _, e := range b.endpoints {
			e.forget()
		}
		conns.Wait()
	})
	return b
}

// carry brings bytes to and fro until one side has closed.
func (b *balancer) carry(client net.Conn) {
	defer client.Close()
	addr := b.pick()
	if addr == "" {
		return // the client sees a connection that ends, as with a Service without endpoints
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

// add puts an api behind the balancer and asks it for its readiness from now on.
func (b *balancer) add(addr, admin string) *endpoint {
	e := &endpoint{addr: addr, admin: admin, asked: make(chan struct{}), done: make(chan struct{})}
	e.ready.Store(answers(admin+"/readyz", http.StatusOK) == nil)
	b.mu.Lock()
	b.endpoints = append(b.endpoints, e)
	b.mu.Unlock()
	go func() {
		defer close(e.done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-e.asked:
				return
			case <-tick.C:
				e.ready.Store(answers(admin+"/readyz", http.StatusOK) == nil)
			}
		}
	}()
	return e
}

func (e *endpoint) forget() {
	select {
	case <-e.asked:
	default:
		close(e.asked)
	}
	<-e.done
}

// caller is a client that tries nothing twice. It keeps its connection for as long as it may. It is not package client's,
// because net/http sends a GET again when a kept connection has ended, and so hides the loss that is looked for here.
type caller struct {
	addr string
	conn net.Conn
	in   *bufio.Reader
}

// call sends one request and returns the answer's body. Whatever is not the wanted status is an error.
func (c *caller) call(method, path, body string, status int) ([]byte, error) {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			return nil, err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	text, err := c.exchange(method, path, body, status)
	if err != nil {
		c.close()
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return text, nil
}

func (c *caller) exchange(method, path, body string, status int) ([]byte, error) {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
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
	if resp.Close { // as the server asks
		c.close()
	}
	return text, nil
}

func (c *caller) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// load is clients at work until they are stopped.
type load struct {
	stop    chan struct{}
	wg      sync.WaitGroup
	mu      sync.Mutex
	wrong   []error
	reads   int
	created []int64 // ids of products, one picture each
}

func (l *load) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.wrong = append(l.wrong, err)
	}
}

// run starts a client that does again and again what it is told.
func (l *load) run(addr string, do func(*caller) error) {
	l.wg.Go(func() {
		c := &caller{addr: addr}
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

// rollingSystem is two of each behind a balancer.
type rollingSystem struct {
	*system
	balancer *balancer
	apis     []*running
	behind   []*endpoint
	workers  []*running
	load     *load
}

func (s *rollingSystem) startAPI() (*running, *endpoint) {
	s.t.Helper()
	addr := port.Addr(s.t)
	r := s.start("api", "VITRINE_HTTP_ADDR="+addr, "VITRINE_SHUTDOWN_DELAY=5s")
	return r, s.balancer.add(addr, r.admin)
}

// replace starts another program, then stops one as Kubernetes does, and wants it to end well.
func (s *rollingSystem) replace(old *running) {
	s.t.Helper()
	if err := syscall.Kill(old.PID(), syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-old.Exited():
	case <-time.After(patience):
		s.t.Fatalf("%s does not end", old.Name)
	}
	if state := old.State(); state != "exit status 0" {
		s.t.Errorf("%s ended with %s", old.Name, state)
	}
}

// begin starts clients that read, and one that adds a product with a picture now and then.
func (s *rollingSystem) begin(user int64, first int64) {
	s.load = &load{stop: make(chan struct{})}
	addr := s.balancer.Addr().String()
	for range 4 {
		s.load.run(addr, func(c *caller) error {
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
		s.load.run(addr, func(c *caller) error {
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

// hammer has wrk read a product, with a request under way on each of its connections nearly all the time, until the returned
// function stops it and returns what it has to say.
func (s *rollingSystem) hammer(id int64) (stop func() string) {
	s.t.Helper()
	breath := filepath.Join(s.t.TempDir(), "breath.lua")
	if err := os.WriteFile(breath, []byte("function delay() return 5 end"), 0o600); err != nil { // milliseconds
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), "wrk", "--threads", "1", "--connections", "4", "--duration", "10m",
		"--timeout", "1m", "--script", breath, fmt.Sprintf("%s/products/%d", s.url, id))
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

// progress waits until the clients have been answered more often: each state of the system has its share of the load.
func (s *rollingSystem) progress() {
	s.t.Helper()
	counts := func() (reads, created int) {
		s.load.mu.Lock()
		defer s.load.mu.Unlock()
		return s.load.reads, len(s.load.created)
	}
	reads, created := counts()
	eventually(s.t, "the clients are answered", func() error {
		if r, c := counts(); r < reads+50 || c < created+5 {
			return errors.New("not yet")
		}
		return nil
	})
}

// workedTwice returns how many pictures were begun and downloaded more than once.
func (s *rollingSystem) workedTwice() int {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.env["VITRINE_POSTGRES_DSN"])
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(s.t.Context())
	rows, err := conn.Query(s.t.Context(), "SELECT source_url, status, job_state, fencing_token FROM images WHERE source_url LIKE $1 || '%'",
		s.sources.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	type row struct {
		Source, Status, Work string
		Fence                int
	}
	images, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		s.t.Fatal(err)
	}
	if len(images) != len(s.load.created) {
		s.t.Errorf("%d pictures are in the database, %d were answered with 201", len(images), len(s.load.created))
	}
	twice := 0
	for _, img := range images {
		asked := s.sources.Requests(strings.TrimPrefix(img.Source, s.sources.URL))
		if img.Status != "ready" || img.Work != "idle" || asked < 1 || asked > img.Fence {
			s.t.Errorf("%+v was downloaded %d times, want it ready, and begun before each download", img, asked)
		}
		if img.Fence > 1 || asked > 1 {
			twice++
		}
	}
	return twice
}

func TestARollingRestartLosesNoRequestAndDoesNoWorkTwice(t *testing.T) {
	t.Parallel()
	s := &rollingSystem{system: newSystem(t, nil), balancer: newBalancer(t)}
	for range 2 {
		api, behind := s.startAPI()
		s.apis, s.behind = append(s.apis, api), append(s.behind, behind)
		s.workers = append(s.workers, s.start("worker"))
	}
	s.url = "http://" + s.balancer.Addr().String()
	user := s.user()
	first := s.post(user)
	s.begin(user, first.ID)
	stop := s.hammer(first.ID)
	s.progress()
	transitions := 0
	for i := range 2 {
		s.startAPI()
		s.progress()
		s.replace(s.apis[i])
		s.behind[i].forget()
		s.progress()
		s.start("worker")
		s.progress()
		s.replace(s.workers[i])
		s.progress()
		transitions += 2 // partitions move when a worker comes and when one goes
	}
	said := stop()
	close(s.load.stop)
	s.load.wg.Wait()
	// It says nothing of errors where there are none.
	if !regexp.MustCompile(`\b[1-9]\d* requests in`).MatchString(said) || strings.Contains(said, "Socket errors") ||
		strings.Contains(said, "Non-2xx") {
		t.Errorf("wrk has lost requests, or made none:\n%s", said)
	}
	for _, err := range s.load.wrong {
		t.Errorf("a request was lost: %v", err)
	}
	for _, id := range s.load.created {
		if got := s.settled(id); got.ImageStatus != "ready" {
			t.Errorf("product %d: %+v", id, got)
		}
	}
	// Whatever moves a partition interrupts at most what every worker has in hand: two pictures for each codec process.
	const workers, inHand = 3, 2
	twice := s.workedTwice()
	t.Logf("%d reads, %d pictures, %d worked twice", s.load.reads, len(s.load.created), twice)
	if most := transitions * workers * inHand; twice > most {
		t.Errorf("%d of %d pictures were worked twice, want at most the %d that were in flight", twice, len(s.load.created), most)
	}
}
