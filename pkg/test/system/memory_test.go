package system_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"vitrine.io/pkg/test/client"
)

// memoryLimit is the memory of a pod of the API in the chart's defaults, and GOMEMLIMIT is nine tenths of it.
const memoryLimit = 512 << 20

// Slow readers of large lists, slow senders of large bodies and idle connections with large heads do not take more memory
// than a pod has. What does not fit is answered 503, and the API works afterwards.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	s := newSystem(t, map[string]string{"VITRINE_HTTP_READ_TIMEOUT": "30s", "VITRINE_HTTP_WRITE_TIMEOUT": "60s"})
	s.bin = plainAPI(t)
	group := newMemoryGroup(t, memoryLimit)
	s.under = group.command()
	api := s.start("api", fmt.Sprintf("GOMEMLIMIT=%d", memoryLimit/10*9))
	user := s.largeProducts(100)
	host := strings.TrimPrefix(s.url, "http://")

	load := &slowClients{t: t, host: host}
	list := fmt.Sprintf("GET /products?user_id=%d&limit=100 HTTP/1.1\r\nHost: x\r\n\r\n", user)
	const post = "POST /products HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	body := fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", post, 1<<20, strings.Repeat(" ", 1<<20-1))
	head := "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Padding: " + strings.Repeat("x", 15<<10)
	for n := range 8 { // client addresses: each may have an eighth
		load.send(n, 20, strings.Repeat(list, 3))
		load.send(n, 40, body)
		load.send(n, 150, head)
	}
	load.wait()
	peak := 0
	for range 50 { // while the clients hold their connections
		if got := s.call(http.MethodGet, "/healthz", ""); got.Status != http.StatusOK {
			t.Errorf("under load: got %d", got.Status)
		}
		peak = max(peak, residentPeak(t, api.PID()))
	}
	load.close()
	if peak > memoryLimit {
		t.Errorf("the API had %d MiB, and a pod has %d", peak>>20, memoryLimit>>20)
	}
	t.Logf("peak %d MiB, %v requests shed", peak>>20, s.metric(api, "vitrine_http_shed_total"))
	if s.metric(api, "vitrine_http_shed_total") == 0 {
		t.Error("nothing was shed: the load was too small for the limits")
	}
	group.check()
	eventually(t, "all memory is released", func() error {
		if n := s.metric(api, "vitrine_http_bytes_in_flight"); n != 0 {
			return fmt.Errorf("%v bytes in flight", n)
		}
		return nil
	})
	if got := s.call(http.MethodGet, fmt.Sprintf("/products?user_id=%d&limit=100", user), ""); got.Status != http.StatusOK {
		t.Errorf("after the load: got %d", got.Status)
	}
}

// plainAPI builds the api program as it is shipped, and returns its directory. The race detector, with which the programs of
// other tests are built, needs several times the memory.
func plainAPI(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir+"/", "./cmd/api")
	build.Dir = repository
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the api: %v\n%s", err, out)
	}
	return dir
}

// largeProducts creates products of about 100 kB for a new user.
func (s *system) largeProducts(n int) (user int64) {
	s.t.Helper()
	user = s.user()
	var urls []string
	for i := range 20 {
		urls = append(urls, fmt.Sprintf("https://images.example/%d/%s", i, strings.Repeat("x", 2000)))
	}
	for range n {
		_, err := s.api().CreateProduct(s.t.Context(), client.NewProduct{
			UserID: user, Name: "Chair", Price: "12.50", Description: strings.Repeat("x", 10_000), Sources: urls,
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	return user
}

// residentPeak returns the largest resident memory that a process has had, in bytes.
func residentPeak(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// slowClients are connections that send a request, or a part of it, and read nothing.
type slowClients struct {
	t    *testing.T
	host string
	wg   sync.WaitGroup
	mu   sync.Mutex
	open []net.Conn
}

// send opens connections from the client address 127.0.1.n and sends bytes on each.
func (c *slowClients) send(n, connections int, bytes string) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(n+1))}, Timeout: timeout}
	for range connections {
		c.wg.Go(func() {
			conn, err := dialer.Dial("tcp", c.host)
			if err != nil {
				c.t.Error(err)
				return
			}
			c.mu.Lock()
			c.open = append(c.open, conn)
			c.mu.Unlock()
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetReadBuffer(4 << 10)
			}
			_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second)) // a server that has answered may not read the rest
			_, _ = io.WriteString(conn, bytes)
		})
	}
}

func (c *slowClients) wait() { c.wg.Wait() }

func (c *slowClients) close() {
	for _, conn := range c.open {
		_ = conn.Close()
	}
}
