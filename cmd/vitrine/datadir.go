package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// dataDir returns where dev keeps its data: .vitrine in here, or a directory below shared whose name is derived from here,
// if the user that Postgres runs as (nil: the current user) cannot enter here.
func dataDir(here, shared string, as *syscall.Credential) (string, error) {
	here, err := filepath.Abs(here)
	if err != nil {
		return "", err
	}
	if as == nil || canEnter(here, as) {
		return filepath.Join(here, ".vitrine"), nil
	}
	sum := sha256.Sum256([]byte(here))
	return filepath.Join(shared, hex.EncodeToString(sum[:6])), nil
}

// canEnter reports whether the user may pass through dir and everything above it.
func canEnter(dir string, as *syscall.Credential) bool {
	var info syscall.Stat_t
	if syscall.Stat(dir, &info) != nil {
		return false
	}
	pass := uint32(0o001)
	switch {
	case info.Uid == as.Uid:
		pass = 0o100
	case info.Gid == as.Gid:
		pass = 0o010
	}
	parent := filepath.Dir(dir)
	return info.Mode&pass != 0 && (parent == dir || canEnter(parent, as))
}

// makeDirs makes the data directory and what dev keeps in it. All users may enter, because Postgres' user has to.
func makeDirs(data string, names ...string) error {
	for _, name := range append([]string{""}, names...) {
		dir := filepath.Join(data, name)
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // Postgres' user has to enter
			return fmt.Errorf("make data directory: %w", err)
		}
	}
	return nil
}
