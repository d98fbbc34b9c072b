package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// claimStdout takes the frames' way out for ourselves and sends what the C libraries print to stdout to stderr instead: one
// debug line between two frames would cost a picture.
func claimStdout() (*os.File, error) {
	fd, err := syscall.Dup(syscall.Stdout)
	if err = errors.Join(err, syscall.Dup3(syscall.Stderr, syscall.Stdout, 0)); err != nil {
		return nil, fmt.Errorf("claim stdout: %w", err)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "stdout"), nil
}

// limitMemory lets the process take room bytes of address space more than it has now; 0 sets no limit. The base is measured
// and not assumed: Go reserves a gigabyte that it never touches, and a preloaded allocator its own.
func limitMemory(room int64) error {
	if room == 0 {
		return nil
	}
	if room < 0 {
		return errors.New("limit memory: less than nothing")
	}
	statm, err := os.ReadFile("/proc/self/statm")
	pages, _, _ := strings.Cut(string(statm), " ")
	now, notANumber := strconv.ParseInt(pages, 10, 64)
	if err = errors.Join(err, notANumber); err == nil {
		most := uint64(now*int64(os.Getpagesize()) + room)
		err = syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: most, Max: most})
	}
	if err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	return nil
}
