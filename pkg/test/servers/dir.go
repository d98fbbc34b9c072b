package servers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"vitrine.io/pkg/test/port"
)

// dirPrefix names our temporary directories, so that one left by a killed process is recognised.
const dirPrefix = "vitrine-test-"

// lockName is the file in each of them that its owner holds a lock on.
const lockName = "lock"

// workDir is a temporary directory that is known to be in use as long as this process lives: it holds a lock on a file in
// it, and the kernel releases the lock whatever the process dies of. It keeps the ports of the servers whose files it holds.
type workDir struct {
	path string
	lock *os.File

	mu    sync.Mutex
	ports []*port.Reservation
}

// newWorkDir removes what dead processes left under parent and makes a new directory there.
func newWorkDir(parent string) (*workDir, error) {
	sweep(parent)
	path, err := os.MkdirTemp(parent, dirPrefix)
	if err != nil {
		return nil, fmt.Errorf("make directory for servers: %w", err)
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, fmt.Errorf("lock directory for servers: %w", err)
	}
	// Postgres runs as another user when we are root, and has to pass through.
	if err := os.Chmod(path, 0o755); err != nil { //nolint:gosec // what is inside has modes of its own
		return nil, fmt.Errorf("open directory for servers: %w", err)
	}
	return &workDir{path: path, lock: lock}, nil
}

// remove deletes the directory and ends the reservations of ports. The servers are stopped by then.
func (d *workDir) remove() error {
	err := os.RemoveAll(d.path)
	_ = d.lock.Close() // nothing was written to it
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.ports {
		r.Release()
	}
	d.ports = nil
	return err
}

// reserve reserves a port, and the ports at the given distances from it, until remove. So a server that is stopped keeps its
// ports.
func (d *workDir) reserve(distances ...int) (*port.Reservation, error) {
	r, err := port.Reserve(distances...)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ports = append(d.ports, r)
	return r, nil
}

// sub makes a directory inside, owned by user (nil: us).
func (d *workDir) sub(pattern string, user *syscall.Credential) (string, error) {
	path, err := os.MkdirTemp(d.path, pattern)
	if err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	if user == nil {
		return path, nil
	}
	if err := os.Chown(path, int(user.Uid), int(user.Gid)); err != nil {
		return "", fmt.Errorf("give directory away: %w", err)
	}
	return path, nil
}

// lockDir takes the lock that says "in use", or fails at once if another process has it.
//
// In a new directory the lock file gets its name when it is locked already, so that no sweeper finds it unlocked.
func lockDir(path string) (*os.File, error) {
	name := filepath.Join(path, lockName)
	lock, err := os.OpenFile(name, os.O_RDWR, 0o600)
	isNew := errors.Is(err, os.ErrNotExist)
	if isNew {
		lock, err = os.CreateTemp(path, lockName+"-")
	}
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil && isNew {
		err = os.Rename(lock.Name(), name)
	}
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return lock, nil
}

// sweep removes directories whose owner is dead. A directory without a lock file is too young to have one.
func sweep(parent string) {
	left, err := filepath.Glob(filepath.Join(parent, dirPrefix+"*", lockName))
	if err != nil {
		return // only a malformed pattern does this; a temporary directory with brackets in its name is just not swept
	}
	for _, file := range left {
		path := filepath.Dir(file)
		lock, err := lockDir(path)
		if err != nil {
			continue // in use, or another user's
		}
		_ = os.RemoveAll(path) // what cannot be removed now is tried again by the next start
		_ = lock.Close()
	}
}
