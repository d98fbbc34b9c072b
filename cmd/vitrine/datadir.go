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
	for {
		info, err := os.Stat(dir)
		if err != nil {
			return false
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return false
		}
		var pass os.FileMode
		switch {
		case owner.Uid == as.Uid:
			pass = 0o100
		case owner.Gid == as.Gid:
			pass = 0o010
		default:
			pass = 0o001
		}
		if info.Mode()&pass == 0 {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
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
