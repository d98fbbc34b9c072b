package pipeline

import "github.com/fsnotify/fsnotify"

// SetNotify gives w another notifier than the system's.
func (w *Watcher) SetNotify(notify func() (*fsnotify.Watcher, error)) { w.notify = notify }

// Look is one look at the file, as Run takes it.
func (w *Watcher) Look(told func(State)) (again bool) { return w.reload(told) }

// Eye watches a directory, as Run does.
type Eye struct{ dirWatcher }

// NewEye returns an eye on a directory.
func NewEye(dir string) *Eye { return &Eye{dirWatcher{dir: dir, notify: fsnotify.NewWatcher}} }

// Open is open.
func (e *Eye) Open() error { return e.open() }

// Close is close.
func (e *Eye) Close() { e.close() }

// Events is events.
func (e *Eye) Events() <-chan fsnotify.Event { return e.events() }
