package pipeline

import "github.com/fsnotify/fsnotify"

// SetNotifier replaces the function that opens the system's notifier.
func (w *Watcher) SetNotifier(notify func() (*fsnotify.Watcher, error)) { w.newNotifier = notify }

// Reload is reload.
func (w *Watcher) Reload(onChange func(State)) (unconfirmed bool) { return w.reload(onChange) }

// DirWatcher is dirWatcher.
type DirWatcher struct{ dirWatcher }

// NewDirWatcher returns a watcher of dir that is not open yet.
func NewDirWatcher(dir string) *DirWatcher {
	return &DirWatcher{dirWatcher{dir: dir, newNotifier: fsnotify.NewWatcher}}
}

// Open is open.
func (d *DirWatcher) Open() error { return d.open() }

// Close is close.
func (d *DirWatcher) Close() { d.close() }

// Events is events.
func (d *DirWatcher) Events() <-chan fsnotify.Event { return d.events() }
