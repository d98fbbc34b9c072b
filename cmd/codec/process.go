package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// claimStdout returns a copy of stdout for frames and redirects stdout to stderr: a line that a C library prints between two
// frames would break the protocol.
func claimStdout() (*os.File, error) {
	fd, err := syscall.Dup(syscall.Stdout)
	if err = errors.Join(err, syscall.Dup3(syscall.Stderr, syscall.Stdout, 0)); err != nil {
		return nil, fmt.Errorf("claim stdout: %w", err)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "stdout"), nil
}

// limitMemory limits the address space of the process to extra bytes above its present size; 0 sets no limit. The present
// size is measured, because Go and a preloaded allocator reserve address space that they do not use.
func limitMemory(extra int64) error {
	if extra == 0 {
		return nil
	}
	if extra < 0 {
		return errors.New("limit memory: negative size")
	}
	statm, err := os.ReadFile("/proc/self/statm")
	pages, _, _ := strings.Cut(string(statm), " ")
	now, notANumber := strconv.ParseInt(pages, 10, 64)
	if err = errors.Join(err, notANumber); err == nil {
		limit := uint64(now*int64(os.Getpagesize()) + extra)
		err = syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: limit, Max: limit})
	}
	if err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	return nil
}
