// Package port reserves TCP ports of 127.0.0.1 for the servers of tests, benchmarks and chaos runs.
//
// A server that is stopped and started again needs its port to stay free in between. Two things can take it: an outgoing
// connection, to which the kernel gives any free port of its ephemeral range, and another harness on the same machine that
// looks for a free port. So a reserved port is outside the ephemeral range, and a lock on a file that all processes of the
// machine share keeps other harnesses away from it, whether or not a server listens there. The kernel releases the lock when
// the process ends, SIGKILL included.
package port

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

const (
	first    = 10000 // below are the default ports of well-known servers
	last     = 65535
	attempts = 500
)

// lockDir has a lock file for each port that was ever reserved. It does not follow TMPDIR, which differs between processes.
const lockDir = "/tmp/vitrine-ports"

// ephemeralFile holds the first and the last port that Linux gives to outgoing connections.
const ephemeralFile = "/proc/sys/net/ipv4/ip_local_port_range"

// Reservation is a port, with companions at fixed distances, that no other reservation on this machine has. It lasts until
// Release or the end of the process, also without a reference to it.
type Reservation struct {
	Port  int
	locks []int // file descriptors: an os.File would give up its lock when it is garbage collected
}

// Reserve reserves a port and the ports at the given distances from it. They are outside the ephemeral range, and
// nothing listens on them. The error says why the last of many attempts failed.
func Reserve(distances ...int) (*Reservation, error) {
	if err := createLockDir(lockDir); err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	ports := candidates(ephemeralRange(ephemeralFile), distances)
	var err error
	for range attempts {
		var r *Reservation
		port := ports[rand.IntN(len(ports))] //nolint:gosec // no secret depends on it
		if r, err = take(port, distances...); err == nil {
			return r, nil
		}
	}
	return nil, fmt.Errorf("reserve a port: %d attempts failed, the last one with: %w", attempts, err)
}

// Addr reserves a port until the end of the test, and returns its address.
func Addr(t testing.TB) string {
	t.Helper()
	r, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Release)
	return r.Addr()
}

// Addr is the address of the port: 127.0.0.1:port.
func (r *Reservation) Addr() string { return local(r.Port) }

// Release ends the reservation. The server is stopped by then. A second call does nothing.
func (r *Reservation) Release() {
	for _, fd := range r.locks {
		_ = syscall.Close(fd) // which unlocks; nothing was written
	}
	r.locks = nil
}

// take reserves this port with its companions, or fails at once.
func take(port int, distances ...int) (*Reservation, error) {
	r := &Reservation{Port: port}
	for _, distance := range append([]int{0}, distances...) {
		fd, err := lock(filepath.Join(lockDir, strconv.Itoa(port+distance)))
		if err == nil {
			r.locks = append(r.locks, fd)
			err = unused(port + distance)
		}
		if err != nil {
			r.Release()
			return nil, err
		}
	}
	return r, nil
}

// lock takes the lock on a file, which it creates if missing, or fails at once. It returns the descriptor with the lock.
// No child inherits the descriptor. The file is never removed: another process may be about to lock it.
func lock(path string) (int, error) {
	const mode = syscall.O_RDONLY | syscall.O_CLOEXEC
	fd, err := syscall.Open(path, mode, 0)
	if errors.Is(err, syscall.ENOENT) {
		// Not O_CREAT alone: Linux refuses that for another user's file in a directory with the sticky bit.
		fd, err = syscall.Open(path, mode|syscall.O_CREAT|syscall.O_EXCL, 0o644)
	}
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = syscall.Close(fd)
		return 0, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return fd, nil
}

// createLockDir creates the directory, writable for all users like /tmp.
func createLockDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); errors.Is(err, os.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return os.Chmod(dir, 0o777|os.ModeSticky)
}

// unused returns an error if something listens on the port.
func unused(port int) error {
	l, err := net.Listen("tcp", local(port))
	if err != nil {
		return err
	}
	return l.Close()
}

// span is a range of ports, both ends included.
type span struct{ low, high int }

// ephemeralRange reads the range from the kernel. Without the file it is the union of the ranges of common kernels.
func ephemeralRange(file string) span {
	var s span
	text, err := os.ReadFile(file)
	if err == nil {
		_, err = fmt.Sscan(string(text), &s.low, &s.high)
	}
	if err != nil {
		return span{32768, last}
	}
	return s
}

// candidates returns the ports that are outside the ephemeral range with all their companions. If the range leaves
// none, it returns all ports: the locks still exclude other harnesses.
func candidates(ephemeral span, distances []int) []int {
	ports := portsOutside(ephemeral, distances)
	if len(ports) == 0 {
		ports = portsOutside(span{}, distances)
	}
	return ports
}

func portsOutside(s span, distances []int) []int {
	distances = append([]int{0}, distances...)
	ports := make([]int, 0, last-first+1)
	for port := first; port <= last; port++ {
		outside := true
		for _, distance := range distances {
			companion := port + distance
			outside = outside && companion <= last && (companion < s.low || companion > s.high)
		}
		if outside {
			ports = append(ports, port)
		}
	}
	return ports
}

// local returns the loopback address of a port.
func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
