package port_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"vitrine.io/pkg/test/port"
	"vitrine.io/pkg/test/servers"
)

// asHolder makes this test binary a process that reserves a number of ports, prints them, and ends with its input.
const asHolder = "VITRINE_TEST_HOLD_PORTS"

func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv(asHolder)); err == nil {
		hold(n)
		return
	}
	servers.Main(m)
}

func hold(n int) {
	for range n {
		r, err := port.Reserve(1)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(r.Port)
	}
	fmt.Println("all")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// holder is a process that holds ports.
type holder struct {
	cmd   *exec.Cmd
	input io.Closer
	ports []int
}

// startHolder starts a process that reserves n pairs of neighbouring ports. It does not wait for them; see await.
func startHolder(t *testing.T, n int) (h *holder, await func() error) {
	t.Helper()
	h = &holder{cmd: exec.Command(os.Args[0])}
	h.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", asHolder, n), "TMPDIR="+t.TempDir())
	input, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.input = input
	t.Cleanup(func() {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait()
	})
	return h, func() error {
		lines := bufio.NewScanner(output)
		for lines.Scan() && lines.Text() != "all" {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				return fmt.Errorf("%s", lines.Text())
			}
			h.ports = append(h.ports, n, n+1)
		}
		return lines.Err()
	}
}

func TestReserve(t *testing.T) {
	t.Parallel()
	t.Run("concurrent_processes_never_share_a_port", testReserveConcurrentProcesses)
	t.Run("killed_process_releases_its_ports", testReserveKilledProcess)
	t.Run("ports_are_outside_ephemeral_range", testReserveEphemeralRange)
	t.Run("stopped_listener_keeps_its_port", testReserveStoppedListener)
}

// Without the locks, this number of ports would collide dozens of times.
func testReserveConcurrentProcesses(t *testing.T) {
	t.Parallel()
	const processes, each = 3, 300
	holders, errs := make([]*holder, processes), make([]error, processes)
	var all sync.WaitGroup
	for i := range holders {
		var await func() error
		holders[i], await = startHolder(t, each)
		all.Go(func() { errs[i] = await() })
	}
	all.Wait()
	owner := map[int]int{}
	for i, h := range holders {
		if errs[i] != nil || len(h.ports) != 2*each {
			t.Fatalf("process %d reserved %d ports, error %v; want %d", i, len(h.ports), errs[i], 2*each)
		}
		for _, n := range h.ports {
			if other, taken := owner[n]; taken {
				t.Errorf("port %d is reserved by processes %d and %d", n, other, i)
			}
			owner[n] = i
		}
	}
}

func testReserveKilledProcess(t *testing.T) {
	t.Parallel()
	h, await := startHolder(t, 1)
	if err := await(); err != nil {
		t.Fatal(err)
	}
	for _, n := range h.ports {
		if r, err := port.Take(n); err == nil {
			r.Release()
			t.Errorf("port %d is reserved by another process, and was reserved a second time", n)
		}
	}
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = h.cmd.Wait() // says that it was killed
	r, err := port.Take(h.ports[0], 1)
	if err != nil {
		t.Fatal(err)
	}
	r.Release()
}

func testReserveEphemeralRange(t *testing.T) {
	t.Parallel()
	low, high := port.Ephemeral()
	for range 200 {
		r, err := port.Reserve(10000)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Release)
		for _, n := range []int{r.Port, r.Port + 10000} {
			if n >= low && n <= high {
				t.Errorf("port %d is in the ephemeral range, %d to %d", n, low, high)
			}
		}
	}
}

// churn makes n outgoing connections on 127.0.0.1, one after the other, each closed by the client first: so its port stays
// taken for a minute, in the state TIME_WAIT.
func churn(t *testing.T, n int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return
	}
	var server sync.WaitGroup
	server.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
	})
	for range n {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Error(err)
			break
		}
		conn.Close()
	}
	listener.Close()
	server.Wait()
}

// If these ports were in the ephemeral range, the connections would take some of them.
func testReserveStoppedListener(t *testing.T) {
	t.Parallel()
	addrs := make([]string, 40)
	for i := range addrs {
		addrs[i] = port.Addr(t)
		listener, err := net.Listen("tcp", addrs[i])
		if err != nil {
			t.Fatal(err)
		}
		listener.Close()
	}
	churn(t, 3000)
	for _, addr := range addrs {
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			t.Error(err)
			continue
		}
		listener.Close()
	}
}

// A Redis Cluster has six ports here, bus ports included.
func TestServer(t *testing.T) {
	t.Parallel()
	t.Run("restarts_beside_outgoing_connections", func(t *testing.T) {
		t.Parallel()
		server := servers.RedisServer(t)
		before := strings.Join(server.Addrs, " ")
		for range 2 {
			server.Stop(t)
			churn(t, 4000)
			var beside sync.WaitGroup
			beside.Go(func() { churn(t, 500) })
			server.Start(t)
			beside.Wait()
		}
		if after := strings.Join(server.Addrs, " "); after != before {
			t.Errorf("it listens on %s, and before on %s", after, before)
		}
	})
}
