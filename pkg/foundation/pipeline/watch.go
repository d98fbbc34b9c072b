package pipeline

import (
	"context"
	"crypto/sha256"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settleDelay is how long a file's content must stand still before it is judged: an editor writes in several steps, and half a
// document can be a valid one.
const settleDelay = 100 * time.Millisecond

// State is what a Watcher knows at a moment.
type State struct {
	Revision   *Revision // in force
	Since      time.Time // when it came into force
	Err        error     // why the file's present content is not in force; nil when it is
	ReloadedAt time.Time // the last reload, good or bad; the start is the first
	WatchErr   error     // why changes are found by polling alone; nil when the directory is watched
}

// Watcher keeps the pipeline in force equal to its file. Its methods may be called at any time by anyone, except that Run
// runs once.
type Watcher struct {
	cfg         Config
	now         func() time.Time
	newNotifier func() (*fsnotify.Watcher, error)
	state       atomic.Pointer[State]
	lastApplied fingerprint // the content that state tells of
	lastRead    fingerprint // the content at the last look
}

// NewWatcher reads the pipeline for the first time, or takes the default if no file is named. A file that cannot be read or
// is not valid is an error: there is no last good one yet.
func NewWatcher(cfg Config, now func() time.Time) (*Watcher, error) {
	w := &Watcher{cfg: cfg, now: now, newNotifier: fsnotify.NewWatcher}
	p := Default()
	if cfg.File != "" {
		data, err := readFile(cfg.File)
		if err != nil {
			return nil, err
		}
		if p, err = parseFile(cfg.File, data); err != nil {
			return nil, err
		}
		w.lastApplied = fingerprintOf(data, nil)
	}
	w.state.Store(&State{Revision: NewRevision(p), Since: now(), ReloadedAt: now()})
	return w, nil
}

// Current returns the revision in force. It takes no lock.
func (w *Watcher) Current() *Revision { return w.state.Load().Revision }

// State returns what is known now.
func (w *Watcher) State() State { return *w.state.Load() }

// Run follows the file until ctx ends, and calls told after each change of the state, one call at a time. Nothing that
// happens to the file ends it. It watches the file's directory, since Kubernetes never writes a mounted file but swaps the
// link ..data beside it; what the watch misses, the poll finds.
func (w *Watcher) Run(ctx context.Context, told func(State)) error {
	if w.cfg.File == "" {
		<-ctx.Done()
		return nil
	}
	eye := &dirWatcher{dir: filepath.Dir(w.cfg.File), newNotifier: w.newNotifier}
	defer eye.close()
	poll := time.NewTicker(w.cfg.Poll)
	defer poll.Stop()
	w.open(eye, told)
	look := time.NewTimer(0) // the file may have changed since the start
	defer look.Stop()
	waiting := true // for a look; what happens meanwhile does not put it off, or a busy directory would for ever
	expect := func() {
		if !waiting {
			waiting = true
			look.Reset(settleDelay)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
			w.open(eye, told)
			expect()
		case event := <-eye.events():
			if event.Op != fsnotify.Chmod {
				expect()
			}
		case err := <-eye.errors():
			if err != nil { // events were lost
				expect()
			}
		case <-look.C:
			waiting = false
			if w.reload(told) {
				expect()
			}
		}
	}
}

// reload reads the file. Content that has not been judged yet has to be the same at two looks in a row: again asks for the
// second.
func (w *Watcher) reload(told func(State)) (again bool) {
	data, err := readFile(w.cfg.File)
	found := fingerprintOf(data, err)
	before := w.lastRead
	w.lastRead = found
	switch {
	case found == w.lastApplied:
		return false
	case found != before:
		return true
	}
	w.lastApplied = found
	w.apply(data, err, told)
	return false
}

// apply takes the file's content into force, or says why not.
func (w *Watcher) apply(data []byte, err error, told func(State)) {
	next := w.State()
	next.ReloadedAt, next.Err = w.now(), err
	if err == nil {
		var p Pipeline
		if p, next.Err = parseFile(w.cfg.File, data); next.Err == nil {
			if r := NewRevision(p); !r.same(next.Revision) {
				next.Revision, next.Since = r, next.ReloadedAt
			}
		}
	}
	w.state.Store(&next)
	told(next)
}

// open makes sure that the directory is watched, and tells when that has changed.
func (w *Watcher) open(eye *dirWatcher, told func(State)) {
	next := w.State()
	before := next.WatchErr
	next.WatchErr = eye.open()
	if (before == nil) == (next.WatchErr == nil) {
		return
	}
	w.state.Store(&next)
	told(next)
}

// fingerprint stands for what reading a file has brought: its content, or the error. The zero mark is neither's.
type fingerprint [sha256.Size]byte

func fingerprintOf(data []byte, err error) fingerprint {
	if err != nil {
		data = append([]byte("error: "), err.Error()...) // no document begins so
	}
	return sha256.Sum256(data)
}
