package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// claimStdout takes the frames' way out for ourselves and sends what the C libraries print to stdout to stderr instead: one
// debug line between two frames would cost a picture.
func claimStdout() (*os.File, error) {
	fd, err := syscall.Dup(int(os.Stdout.Fd()))
	if err != nil {
		return nil, fmt.Errorf("claim stdout: %w", err)
	}
	syscall.CloseOnExec(fd)
	if err := syscall.Dup3(int(os.Stderr.Fd()), int(os.Stdout.Fd()), 0); err != nil {
		return nil, fmt.Errorf("claim stdout: %w", err)
	}
	return os.NewFile(uintptr(fd), "stdout"), nil
}

// limitMemory lets the process take room bytes of address space more than it has now. The base is measured and not assumed:
// Go reserves a gigabyte that it never touches, and a preloaded allocator its own.
func limitMemory(room int64) error {
	if room == 0 {
		return nil
	}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	pages, _, _ := strings.Cut(string(statm), " ")
	now, err := strconv.ParseInt(pages, 10, 64)
	if err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	most := uint64(now*int64(os.Getpagesize()) + room) //nolint:gosec // both positive
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	return nil
}
