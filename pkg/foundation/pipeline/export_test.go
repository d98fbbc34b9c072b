package pipeline

import "github.com/fsnotify/fsnotify"

// SetNotifier gives w another notifier than the system's.
func (w *Watcher) SetNotifier(notify func() (*fsnotify.Watcher, error)) { w.newNotifier = notify }

// Reload is one look at the file, as Run takes it.
func (w *Watcher) Reload(told func(State)) (again bool) { return w.reload(told) }

// DirWatcher watches a directory, as Run does.
type DirWatcher struct{ dirWatcher }

// NewDirWatcher returns an eye on a directory.
func NewDirWatcher(dir string) *DirWatcher {
	return &DirWatcher{dirWatcher{dir: dir, newNotifier: fsnotify.NewWatcher}}
}

// Open is open.
func (e *DirWatcher) Open() error { return e.open() }

// Close is close.
func (e *DirWatcher) Close() { e.close() }

// Events is events.
func (e *DirWatcher) Events() <-chan fsnotify.Event { return e.events() }
