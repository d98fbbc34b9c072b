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

// dirPrefix is the prefix of the temporary directories, by which a later process finds those of killed processes.
const dirPrefix = "vitrine-test-"

// lockName is the file in each directory on which its owner holds a lock.
const lockName = "lock"

// workDir is a temporary directory that is locked as long as this process lives: the process holds a lock on a file in it,
// and the kernel releases the lock when the process ends for any reason. It also keeps the port reservations of its servers.
type workDir struct {
	path string
	lock *os.File

	mu    sync.Mutex
	ports []*port.Reservation
}

// newWorkDir removes the directories of ended processes below parent, and creates a new one there.
func newWorkDir(parent string) (*workDir, error) {
	removeAbandoned(parent)
	path, err := os.MkdirTemp(parent, dirPrefix)
	if err != nil {
		return nil, fmt.Errorf("create directory for servers: %w", err)
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, fmt.Errorf("lock directory for servers: %w", err)
	}
	// For a root user Postgres runs as another user, which has to enter the directory.
	if err := os.Chmod(path, 0o755); err != nil { //nolint:gosec // the files inside have their own modes
		return nil, fmt.Errorf("open directory for servers: %w", err)
	}
	return &workDir{path: path, lock: lock}, nil
}

// remove deletes the directory and releases the ports. The servers must be stopped.
func (d *workDir) remove() error {
	err := os.RemoveAll(d.path)
	_ = d.lock.Close() // it is empty
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.ports {
		r.Release()
	}
	d.ports = nil
	return err
}

// reserve reserves a port, and the ports at the given distances from it, until remove, so that a stopped server keeps its
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

// sub creates a directory inside, owned by user (nil: the current user).
func (d *workDir) sub(pattern string, user *syscall.Credential) (string, error) {
	path, err := os.MkdirTemp(d.path, pattern)
	if err != nil {
		return "", fmt.Errorf("create directory: %w", err)
	}
	if user == nil {
		return path, nil
	}
	if err := os.Chown(path, int(user.Uid), int(user.Gid)); err != nil {
		return "", fmt.Errorf("change owner of directory: %w", err)
	}
	return path, nil
}

// lockDir locks a directory's lock file, or fails at once if another process holds the lock.
//
// In a new directory the lock file gets its name after it is locked, so that another process never finds it unlocked.
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

// removeAbandoned removes directories whose owner has ended. A directory without a lock file is being created.
func removeAbandoned(parent string) {
	left, err := filepath.Glob(filepath.Join(parent, dirPrefix+"*", lockName))
	if err != nil {
		return // a malformed pattern: parent has brackets in its name
	}
	for _, file := range left {
		path := filepath.Dir(file)
		lock, err := lockDir(path)
		if err != nil {
			continue // in use, or another user's
		}
		_ = os.RemoveAll(path) // the next start retries
		_ = lock.Close()
	}
}
