package pipeline

import (
	"context"
	"crypto/sha256"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settleDelay is how long a file's content must be unchanged before it is applied: editors write in several steps, and the
// first half of a document can be valid.
const settleDelay = 100 * time.Millisecond

// State is the state of a Watcher at one time.
type State struct {
	Revision   *Revision // in force
	Since      time.Time // when it came into force
	Err        error     // why the file's current content is not in force; nil if it is
	ReloadedAt time.Time // time of the last reload, successful or not, or of the start
	WatchErr   error     // why changes are found only by polling; nil while the directory is watched
}

// Watcher keeps the pipeline in force equal to its file. Its methods are safe for concurrent use, but Run must be called at
// most once.
type Watcher struct {
	cfg         Config
	now         func() time.Time
	newNotifier func() (*fsnotify.Watcher, error)
	state       atomic.Pointer[State]
	lastApplied fingerprint // the content of the last reload
	lastRead    fingerprint // the content at the last read
}

// NewWatcher reads the pipeline file, or uses the default pipeline if cfg names no file. An unreadable or invalid file is an
// error: there is no earlier revision that could stay in force.
func NewWatcher(cfg Config, now func() time.Time) (*Watcher, error) {
	w := &Watcher{cfg: cfg, now: now, newNotifier: fsnotify.NewWatcher}
	p := Default()
	if cfg.File != "" {
		data, err := readFile(cfg.File)
		if err != nil {
			return nil, err
		}
		if p, err = cfg.parseFile(data); err != nil {
			return nil, err
		}
		w.lastApplied = fingerprintOf(data, nil)
	} else if err := cfg.Bounds.check(p.Spec); err != nil {
		return nil, err
	}
	w.state.Store(&State{Revision: cfg.Bounds.NewRevision(p), Since: now(), ReloadedAt: now()})
	return w, nil
}

// Current returns the revision in force, without locking.
func (w *Watcher) Current() *Revision { return w.state.Load().Revision }

// State returns the current state.
func (w *Watcher) State() State { return *w.state.Load() }

// Run follows the file until ctx ends, and calls onChange after each change of the state, one call at a time. It always
// returns nil: an error of the file is part of the state. Run watches the file's directory, because Kubernetes does not
// write a mounted file but replaces the symbolic link ..data beside it. Polling finds changes without an event.
func (w *Watcher) Run(ctx context.Context, onChange func(State)) error {
	if w.cfg.File == "" {
		<-ctx.Done()
		return nil
	}
	watcher := &dirWatcher{dir: filepath.Dir(w.cfg.File), newNotifier: w.newNotifier}
	defer watcher.close()
	poll := time.NewTicker(w.cfg.Poll)
	defer poll.Stop()
	w.open(watcher, onChange)
	next := time.NewTimer(0) // the file may have changed since NewWatcher
	defer next.Stop()
	scheduled := true // later events do not postpone a scheduled reload, or a busy directory would do so forever
	schedule := func() {
		if !scheduled {
			scheduled = true
			next.Reset(settleDelay)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
			w.open(watcher, onChange)
			schedule()
		case event := <-watcher.events():
			if event.Op != fsnotify.Chmod {
				schedule()
			}
		case err := <-watcher.errors():
			if err != nil { // events were lost
				schedule()
			}
		case <-next.C:
			scheduled = false
			if w.reload(onChange) {
				schedule()
			}
		}
	}
}

// reload reads the file and applies its content, if it is new and equal to that of the previous call. It returns true if a
// second read has to confirm the content.
func (w *Watcher) reload(onChange func(State)) (unconfirmed bool) {
	data, err := readFile(w.cfg.File)
	read := fingerprintOf(data, err)
	before := w.lastRead
	w.lastRead = read
	switch {
	case read == w.lastApplied:
		return false
	case read != before:
		return true
	}
	w.lastApplied = read
	w.apply(data, err, onChange)
	return false
}

// apply puts the file's content into force, or sets the state's error.
func (w *Watcher) apply(data []byte, err error, onChange func(State)) {
	next := w.State()
	next.ReloadedAt, next.Err = w.now(), err
	if err == nil {
		var p Pipeline
		if p, next.Err = w.cfg.parseFile(data); next.Err == nil {
			if r := w.cfg.Bounds.NewRevision(p); !r.same(next.Revision) {
				next.Revision, next.Since = r, next.ReloadedAt
			}
		}
	}
	w.state.Store(&next)
	onChange(next)
}

// open watches the directory, and calls onChange if that starts or ceases to work.
func (w *Watcher) open(watcher *dirWatcher, onChange func(State)) {
	next := w.State()
	before := next.WatchErr
	next.WatchErr = watcher.open()
	if (before == nil) == (next.WatchErr == nil) {
		return
	}
	w.state.Store(&next)
	onChange(next)
}

// fingerprint identifies the result of reading a file, content or error. The zero value is the result of no read.
type fingerprint [sha256.Size]byte

func fingerprintOf(data []byte, err error) fingerprint {
	if err != nil {
		data = append([]byte("error: "), err.Error()...) // this is not the beginning of a valid document
	}
	return sha256.Sum256(data)
}
