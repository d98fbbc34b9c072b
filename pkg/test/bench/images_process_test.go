package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// loop is a program that renders files in a loop: testdata/ceiling.c or testdata/sharp.mjs.
type loop struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	out      *bufio.Reader
	lists    string // a directory
	requests int
}

// newCeiling builds and starts the plain C loop, with the allocator and the environment of our codecs.
func newCeiling(tb testing.TB) *loop {
	tb.Helper()
	program := filepath.Join(tb.TempDir(), "ceiling")
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", "vips").Output()
	must(tb, err)
	args := append([]string{"-O2", "-o", program, "testdata/ceiling.c"}, strings.Fields(string(flags))...)
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		tb.Fatalf("build ceiling: %v\n%s", err, out)
	}
	cmd := exec.Command(program, widths()...)
	cmd.Env = append(os.Environ(), "VIPS_BLOCK_UNTRUSTED=1", "VIPS_WARNING=0", "VIPS_DISC_THRESHOLD=512g",
		"LD_PRELOAD=libjemalloc.so.2", "MALLOC_CONF=background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0")
	return startLoop(tb, cmd)
}

// newSharp starts the loop with sharp, which make deps-bench-images installs.
func newSharp(tb testing.TB) *loop {
	tb.Helper()
	cache, err := os.UserCacheDir()
	must(tb, err)
	args := append([]string{"testdata/sharp.mjs", filepath.Join(cache, "vitrine", "sharp")}, widths()...)
	return startLoop(tb, exec.Command("node", args...))
}

func startLoop(tb testing.TB, cmd *exec.Cmd) *loop {
	tb.Helper()
	l := &loop{cmd: cmd, lists: tb.TempDir()}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(tb, err)
	l.in, err = cmd.StdinPipe()
	must(tb, err)
	must(tb, cmd.Start())
	tb.Cleanup(func() {
		must(tb, l.in.Close())
		_, _ = io.Copy(io.Discard, l.out)
		must(tb, cmd.Wait())
	})
	l.out = bufio.NewReader(out)
	_, err = l.out.ReadString('\n')
	must(tb, err)
	return l
}

// render implements renderer.
func (l *loop) render(files []string) (renderTotal, error) {
	l.requests++
	list := filepath.Join(l.lists, strconv.Itoa(l.requests))
	if err := os.WriteFile(list, []byte(strings.Join(files, "\n")+"\n"), 0o600); err != nil {
		return renderTotal{}, err
	}
	if _, err := fmt.Fprintln(l.in, list); err != nil {
		return renderTotal{}, err
	}
	line, err := l.out.ReadString('\n')
	if err != nil {
		return renderTotal{}, fmt.Errorf("read the response of %s: %w", l.cmd.Path, err)
	}
	var m renderTotal
	_, err = fmt.Sscan(line, &m.renditions, &m.bytes)
	return m, err
}

// processes implements renderer.
func (l *loop) processes() []int { return []int{l.cmd.Process.Pid} }

// tick is the unit of times in /proc, USER_HZ, which is 100 on every Linux that Go supports.
const tick = 10 * time.Millisecond

// treeCPU returns the CPU time of processes and of their ended children.
func treeCPU(tb testing.TB, pids []int) time.Duration {
	tb.Helper()
	var sum time.Duration
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		must(tb, err)
		fields := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:]) // from the third on: the state
		for _, field := range fields[11:15] {                                               // utime, stime, cutime, cstime
			ticks, err := strconv.Atoi(field)
			must(tb, err)
			sum += time.Duration(ticks) * tick
		}
	}
	return sum
}

// treeMemory returns the resident memory of processes in bytes: the sum of their peaks, and the current sum.
func treeMemory(tb testing.TB, pids []int) (peak, now int64) {
	tb.Helper()
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		must(tb, err)
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			var kilobytes int64
			switch name {
			case "VmHWM":
				_, err = fmt.Sscan(value, &kilobytes)
				peak += kilobytes << 10
			case "VmRSS":
				_, err = fmt.Sscan(value, &kilobytes)
				now += kilobytes << 10
			}
			must(tb, err)
		}
	}
	return peak, now
}

// childrenOf returns the running children of pid.
func childrenOf(pid int) []int {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well-formed
	var all []int
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}
