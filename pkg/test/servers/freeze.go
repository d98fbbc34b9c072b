package servers

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Freeze suspends all processes of the server, like a machine that hangs: connections stay open and get no answer. Thaw ends
// it; the test has to call it before it ends.
func (s *Server) Freeze(t testing.TB) {
	t.Helper()
	for _, p := range s.server.procs {
		if err := signalTree(p.PID(), syscall.SIGSTOP); err != nil {
			t.Fatalf("servers: freeze %s: %v", p.Name, err)
		}
	}
}

// Thaw continues a frozen server. It does nothing if the server is not frozen.
func (s *Server) Thaw(t testing.TB) {
	t.Helper()
	for _, p := range s.server.procs {
		if err := signalTree(p.PID(), syscall.SIGCONT); err != nil {
			t.Fatalf("servers: thaw %s: %v", p.Name, err)
		}
	}
}

// signalTree signals a process, first of all, and then its children, of which there are no more while it is stopped. It does
// nothing for process 0, which stands for a process that does not run.
func signalTree(pid int, sig syscall.Signal) error {
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return err
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		_, after, found := bytes.Cut(text, []byte(") ")) // behind the name, which may contain blanks
		fields := bytes.Fields(after)
		if err != nil || !found || len(fields) < 2 || string(fields[1]) != strconv.Itoa(pid) {
			continue // it has ended, or is no child
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return err
		}
		if err := syscall.Kill(child, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}
