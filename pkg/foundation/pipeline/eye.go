package pipeline

import (
	"fmt"
	"os"

	"github.com/fsnotify/fsnotify"
)

// dirWatcher watches a directory, which may be replaced by another of the same name.
type dirWatcher struct {
	dir         string
	newNotifier func() (*fsnotify.Watcher, error)
	watcher     *fsnotify.Watcher // nil: not open
	watched     os.FileInfo       // the directory that is watched
}

// open makes sure that the directory which has the name now is watched. The error says why it is not; then there are no
// events.
func (e *dirWatcher) open() error {
	present, err := os.Stat(e.dir)
	if err != nil {
		e.close()
		return fmt.Errorf("watch pipeline: %w", err)
	}
	// fsnotify drops a directory that is removed, and one of the same inode may have come since.
	if e.watcher != nil && os.SameFile(present, e.watched) && len(e.watcher.WatchList()) > 0 {
		return nil
	}
	e.close()
	if e.watcher, err = e.newNotifier(); err != nil { // too many open files or inotify instances: the poll is left
		e.watcher = nil
		return fmt.Errorf("watch pipeline: %w", err)
	}
	if err := e.watcher.Add(e.dir); err != nil {
		e.close()
		return fmt.Errorf("watch pipeline: %w", err)
	}
	e.watched = present
	return nil
}

func (e *dirWatcher) close() {
	if e.watcher != nil {
		_ = e.watcher.Close() // nothing was written
		e.watcher = nil
	}
}

// events is nil, which blocks for ever, while the eye is closed.
func (e *dirWatcher) events() <-chan fsnotify.Event {
	if e.watcher == nil {
		return nil
	}
	return e.watcher.Events
}

func (e *dirWatcher) errors() <-chan error {
	if e.watcher == nil {
		return nil
	}
	return e.watcher.Errors
}
