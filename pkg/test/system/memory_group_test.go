package system_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// memoryGroup is a control group with limited memory and no swap, of version 1 or 2. The kernel counts the memory of the
// processes in it as that of a pod, with buffers of sockets and cached files. The zero value limits nothing.
type memoryGroup struct {
	t   *testing.T
	dir string
}

// newMemoryGroup creates the group in the directory that VITRINE_TEST_CGROUP names, or returns the zero value.
func newMemoryGroup(t *testing.T, limit int) memoryGroup {
	t.Helper()
	g := memoryGroup{t, os.Getenv("VITRINE_TEST_CGROUP")}
	if g.dir == "" {
		return g
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(g.dir); err != nil {
			t.Error(err)
		}
	})
	bytes := strconv.Itoa(limit)
	if !g.set("memory.max", bytes) && !g.set("memory.limit_in_bytes", bytes) {
		t.Fatalf("%s is no control group with a limit of memory", g.dir)
	}
	g.set("memory.swap.max", "0")
	g.set("memory.memsw.limit_in_bytes", bytes) // memory and swap together
	return g
}

// set writes a file of the group, and reports whether the group has it.
func (g memoryGroup) set(file, value string) bool {
	g.t.Helper()
	f, err := os.OpenFile(filepath.Join(g.dir, file), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return true
}

// command returns a command that runs a program in the group. The program is in it from its start, because memory that it
// has already would count elsewhere.
func (g memoryGroup) command() []string {
	if g.dir == "" {
		return nil
	}
	return []string{"/bin/sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, g.dir}
}

// check fails the test if the kernel has killed a process of the group for its memory, and logs the peak.
func (g memoryGroup) check() {
	g.t.Helper()
	if g.dir == "" {
		return
	}
	events := g.read("memory.events") + g.read("memory.oom_control")
	_, rest, found := strings.Cut(events, "oom_kill ")
	var kills int
	if _, err := fmt.Sscan(rest, &kills); !found || err != nil {
		g.t.Fatalf("no number of kills in %q: %v", events, err)
	}
	if kills != 0 {
		g.t.Errorf("the kernel killed %d processes", kills)
	}
	g.t.Logf("control group: peak %s bytes; limit reached: %s; %s",
		strings.TrimSpace(g.read("memory.peak")+g.read("memory.max_usage_in_bytes")),
		strings.TrimSpace(g.read("memory.failcnt")), strings.Join(strings.Fields(events), " "))
}

// read returns a file of the group; "" if the group has none.
func (g memoryGroup) read(file string) string {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.t.Fatal(err)
	}
	return string(text)
}
