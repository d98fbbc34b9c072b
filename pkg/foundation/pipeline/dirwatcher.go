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
func (d *dirWatcher) open() (err error) {
	defer func() {
		if err != nil {
			d.close()
			err = fmt.Errorf("watch pipeline: %w", err)
		}
	}()
	present, err := os.Stat(d.dir)
	if err != nil {
		return err
	}
	// fsnotify drops a removed directory, and a new one may have the same inode number.
	if d.watcher != nil && os.SameFile(present, d.watched) && len(d.watcher.WatchList()) > 0 {
		return nil
	}
	d.close()
	watcher, err := d.newNotifier()
	if err != nil { // such as too many open files or inotify instances
		return err
	}
	d.watcher, d.watched = watcher, present
	return watcher.Add(d.dir)
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
