package pipeline

import (
	"fmt"
	"os"

	"github.com/fsnotify/fsnotify"
)

// dirWatcher watches a directory, which may be replaced by another directory of the same name.
type dirWatcher struct {
	dir         string
	newNotifier func() (*fsnotify.Watcher, error)
	watcher     *fsnotify.Watcher // nil: not open
	watched     os.FileInfo       // the directory that is watched
}

// open watches the directory that has the name now, unless it is watched already. After an error there are no events.
func (d *dirWatcher) open() error {
	present, err := os.Stat(d.dir)
	if err != nil {
		d.close()
		return fmt.Errorf("watch pipeline: %w", err)
	}
	// fsnotify drops a removed directory, and a new one may have the same inode number.
	if d.watcher != nil && os.SameFile(present, d.watched) && len(d.watcher.WatchList()) > 0 {
		return nil
	}
	d.close()
	if d.watcher, err = d.newNotifier(); err != nil { // such as too many open files or inotify instances
		d.watcher = nil
		return fmt.Errorf("watch pipeline: %w", err)
	}
	if err := d.watcher.Add(d.dir); err != nil {
		d.close()
		return fmt.Errorf("watch pipeline: %w", err)
	}
	d.watched = present
	return nil
}

func (d *dirWatcher) close() {
	if d.watcher != nil {
		_ = d.watcher.Close() // it was only read
		d.watcher = nil
	}
}

// events returns nil, which blocks forever, while the watcher is closed.
func (d *dirWatcher) events() <-chan fsnotify.Event {
	if d.watcher == nil {
		return nil
	}
	return d.watcher.Events
}

func (d *dirWatcher) errors() <-chan error {
	if d.watcher == nil {
		return nil
	}
	return d.watcher.Errors
}
