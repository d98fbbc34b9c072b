package pipeline_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/servers"
)

const (
	noPoll  = time.Hour        // longer than any test
	timeout = 30 * time.Second // of a wait for something that should happen at once
)

func TestMain(m *testing.M) { servers.Main(m) }

// wide returns a document whose one rendition has a width in pixels.
func wide(pixels int) string { return strings.Replace(minimal, "320", strconv.Itoa(pixels), 1) }

// volume is a directory like a ConfigMap that kubelet mounts: the file is a symbolic link into ..data, which is a symbolic
// link to a directory with the current content. An update replaces the link ..data.
type volume struct {
	t     *testing.T
	dir   string
	count int
}

func newVolume(t *testing.T, content string) *volume {
	t.Helper()
	v := &volume{t: t, dir: t.TempDir()}
	v.publish(content)
	v.must(os.Symlink(filepath.Join("..data", "imagepipeline.yaml"), v.file()))
	return v
}

func (v *volume) file() string { return filepath.Join(v.dir, "imagepipeline.yaml") }

func (v *volume) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

// publish replaces the content as kubelet's AtomicWriter does.
func (v *volume) publish(content string) {
	v.t.Helper()
	data := filepath.Join(v.dir, "..data")
	old, _ := os.Readlink(data)
	v.count++
	stamped := "..2026_11_22." + strconv.Itoa(v.count)
	v.must(os.Mkdir(filepath.Join(v.dir, stamped), 0o755))
	v.must(os.WriteFile(filepath.Join(v.dir, stamped, "imagepipeline.yaml"), []byte(content), 0o600))
	v.must(os.Symlink(stamped, data+"_tmp"))
	v.must(os.Rename(data+"_tmp", data))
	if old != "" {
		v.must(os.RemoveAll(filepath.Join(v.dir, old)))
	}
}

// watching is a running Watcher with the states that it reports.
type watching struct {
	*pipeline.Watcher
	t      *testing.T
	states chan pipeline.State
}

func newWatcher(t *testing.T, file string, poll time.Duration) *pipeline.Watcher {
	t.Helper()
	w, err := pipeline.NewWatcher(pipeline.Config{File: file, Poll: poll, Bounds: pipeline.DefaultBounds()}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// watch runs a Watcher until the test ends.
func watch(t *testing.T, w *pipeline.Watcher) *watching {
	t.Helper()
	running := &watching{Watcher: w, t: t, states: make(chan pipeline.State, 100)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, func(s pipeline.State) { running.states <- s }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return running
}

// next returns the next reported state.
func (w *watching) next() pipeline.State {
	w.t.Helper()
	select {
	case s := <-w.states:
		return s
	case <-time.After(timeout):
		w.t.Fatal("no state is reported")
		return pipeline.State{}
	}
}

// takes waits for a successful reload with a width.
func (w *watching) takes(width int) pipeline.State {
	w.t.Helper()
	s := w.next()
	if got := s.Revision.Spec().Renditions[0].Width; got != width || s.Err != nil {
		w.t.Fatalf("got width %d and %v, want %d", got, s.Err, width)
	}
	if w.Current() != s.Revision || w.State() != s {
		w.t.Error("the reported state is not the current one")
	}
	return s
}

func TestWatcher(t *testing.T) {
	t.Parallel()
	t.Run("swapped_volume_is_loaded", testWatcherSwappedVolumeIsLoaded)
	t.Run("invalid_file_keeps_last_good", testWatcherInvalidFileKeepsLastGood)
	t.Run("change_of_fetch_keeps_hash", testWatcherChangeOfFetchKeepsHash)
	t.Run("plain_file_is_followed", testWatcherPlainFileIsFollowed)
	t.Run("poll_finds_missed_changes", testWatcherPollFindsMissedChanges)
	t.Run("unstable_content_is_not_loaded", testWatcherUnstableContentIsNotLoaded)
	t.Run("start_without_valid_file", testWatcherStartWithoutValidFile)
	t.Run("no_file_is_the_default", testWatcherNoFileIsTheDefault)
	t.Run("concurrent_readers", testWatcherConcurrentReaders)
}

func testWatcherSwappedVolumeIsLoaded(t *testing.T) {
	t.Parallel()
	v := newVolume(t, wide(10))
	w := watch(t, newWatcher(t, v.file(), noPoll))
	first := w.State()
	for width := 11; width < 14; width++ {
		v.publish(wide(width))
		s := w.takes(width)
		if s.Revision.ID() == first.Revision.ID() || s.Revision.Hash() == first.Revision.Hash() {
			t.Error("another specification has the same ID or hash")
		}
		if !s.Since.After(first.Since) || s.ReloadedAt != s.Since {
			t.Errorf("in force since %v, tried %v, the first %v", s.Since, s.ReloadedAt, first.Since)
		}
	}
}

func testWatcherInvalidFileKeepsLastGood(t *testing.T) {
	t.Parallel()
	v := newVolume(t, wide(10))
	w := watch(t, newWatcher(t, v.file(), noPoll))
	good := w.State()

	v.publish(wide(0))
	bad := w.next()
	if bad.Revision != good.Revision || bad.Since != good.Since || w.Current() != good.Revision {
		t.Error("an invalid file changed the revision in force")
	}
	if !fault.Is(bad.Err, fault.Invalid) || !strings.Contains(bad.Err.Error(), "spec.renditions[0].width") {
		t.Errorf("got %v, want the path of the error", bad.Err)
	}
	if !bad.ReloadedAt.After(good.ReloadedAt) {
		t.Error("ReloadedAt has not changed")
	}

	v.publish("") // a second error is reported too
	if s := w.next(); s.Err == nil || s.Err.Error() == bad.Err.Error() || s.Revision != good.Revision {
		t.Errorf("got %v, want another error and the last good", s.Err)
	}
	v.publish(wide(10))
	if back := w.takes(10); back.Revision != good.Revision || back.Since != good.Since {
		t.Error("the last good revision was replaced")
	}
}

func testWatcherChangeOfFetchKeepsHash(t *testing.T) {
	t.Parallel()
	v := newVolume(t, wide(10))
	w := watch(t, newWatcher(t, v.file(), noPoll))
	first := w.Current()
	v.publish(wide(10) + "  fetch: {perHost: 9}\n")
	s := w.takes(10)
	if s.Revision.ID() == first.ID() || s.Revision.Hash() != first.Hash() || s.Revision.Spec().Fetch.PerHost != 9 {
		t.Errorf("got revision %s of %s, want another ID and the same hash", s.Revision.ID(), first.ID())
	}
	v.publish(wide(10) + "  fetch: {perHost: 9} # as before\n")
	if next := w.takes(10); next.Revision != s.Revision || next.Since != s.Since {
		t.Error("a comment changed the revision")
	}
	v.publish(strings.Replace(wide(10)+"  fetch: {perHost: 9}\n", "small", "other", 1))
	if renamed := w.takes(10); renamed.Revision.Name() != "other" {
		t.Errorf("got name %s, want the new one", renamed.Revision.Name())
	}
}

func testWatcherPlainFileIsFollowed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	write := func(name, content string) {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, wide(10))
	w := watch(t, newWatcher(t, file, noPoll))
	write(file, wide(11))
	w.takes(11)
	write(file+"~", wide(12)) // as editors save
	if err := os.Rename(file+"~", file); err != nil {
		t.Fatal(err)
	}
	w.takes(12)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if s := w.next(); !errors.Is(s.Err, os.ErrNotExist) || w.Current().Spec().Renditions[0].Width != 12 {
		t.Errorf("got %v, want the last good without its file", s.Err)
	}
	write(file, wide(13))
	w.takes(13)
}

func testWatcherPollFindsMissedChanges(t *testing.T) {
	t.Parallel()
	for name, blind := range map[string]bool{"the directory is swapped": false, "there is no notifier": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			link := filepath.Join(dir, "current")
			publish := func(version, content string) {
				if err := errors.Join(
					os.Mkdir(filepath.Join(dir, version), 0o755),
					os.WriteFile(filepath.Join(dir, version, "p.yaml"), []byte(content), 0o600),
					os.Symlink(version, link+"_"), os.Rename(link+"_", link),
				); err != nil {
					t.Fatal(err)
				}
			}
			publish("a", wide(10))
			watcher := newWatcher(t, filepath.Join(link, "p.yaml"), 5*time.Millisecond)
			if blind {
				watcher.SetNotifier(func() (*fsnotify.Watcher, error) { return nil, errors.New("too many open files") })
			}
			w := watch(t, watcher)
			if blind {
				if s := w.next(); s.WatchErr == nil || s.Err != nil {
					t.Errorf("got %v and %v, want an error of the watch", s.WatchErr, s.Err)
				}
			}
			for i, width := range []int{11, 12} {
				publish("b"+strconv.Itoa(i), wide(width))
				w.takes(width)
			}
		})
	}
}

// reopened calls Open until the watcher has another channel of events. A new directory may have the inode number of the one
// that it replaces; then only the notifier detects the change, with a delay.
func reopened(t *testing.T, watcher *pipeline.DirWatcher, before <-chan fsnotify.Event) {
	t.Helper()
	for deadline := time.Now().Add(timeout); ; {
		if err := watcher.Open(); err != nil {
			t.Fatal(err)
		}
		if watcher.Events() != before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the new directory is not watched")
		}
		select {
		case <-before:
		case <-time.After(time.Millisecond):
		}
	}
}

func TestDirWatcher(t *testing.T) {
	t.Parallel()
	t.Run("removed_and_created", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "d")
		testDirWatcherReplacements(t, dir, func() error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)) })
	})
	t.Run("symbolic_link_replaced", func(t *testing.T) {
		t.Parallel()
		parent, count := t.TempDir(), 0
		dir := filepath.Join(parent, "d")
		testDirWatcherReplacements(t, dir, func() error {
			count++
			next := strconv.Itoa(count)
			return errors.Join(os.Mkdir(filepath.Join(parent, next), 0o755), os.Symlink(next, dir+"_"), os.Rename(dir+"_", dir))
		})
	})
}

// testDirWatcherReplacements checks that each directory that replace puts at dir is watched.
func testDirWatcherReplacements(t *testing.T, dir string, replace func() error) {
	t.Helper()
	recreate := func() {
		if err := replace(); err != nil {
			t.Fatal(err)
		}
	}
	recreate()
	watcher := pipeline.NewDirWatcher(dir)
	defer watcher.Close()
	var before <-chan fsnotify.Event
	for range 3 {
		reopened(t, watcher, before)
		before = watcher.Events()
		if err := watcher.Open(); err != nil || watcher.Events() != before {
			t.Errorf("the directory is watched a second time: %v", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		select {
		case <-before:
		case <-time.After(timeout):
			t.Fatal("the new directory is not watched")
		}
		recreate()
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := watcher.Open(); err == nil || watcher.Events() != nil {
		t.Errorf("got %v, want an error for a removed directory", err)
	}
}

func testWatcherUnstableContentIsNotLoaded(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "p.yaml")
	whole := wide(11) + "  - {name: large, width: 1600, formats: [{format: jpeg}]}\n"
	write := func(content string) {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(wide(10))
	w := newWatcher(t, file, noPoll)
	reported := 0
	reload := func() bool { return w.Reload(func(pipeline.State) { reported++ }) }
	if reload() || reported != 0 {
		t.Error("unchanged content is applied again")
	}
	write(wide(11)) // valid, but only half of the document
	if !reload() || reported != 0 {
		t.Error("content is applied after one read")
	}
	write(whole)
	if !reload() || reported != 0 {
		t.Error("content is applied after one read")
	}
	if reload() || reported != 1 || len(w.Current().Spec().Renditions) != 2 {
		t.Errorf("reported %d times, want the whole document once", reported)
	}
	if reload() || reported != 1 {
		t.Error("the same content is applied twice")
	}
}

func testWatcherStartWithoutValidFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte(wide(0)), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		bad: "spec.renditions[0].width", filepath.Join(dir, "none"): "open", dir: "read",
	} {
		_, err := pipeline.NewWatcher(pipeline.Config{File: file, Bounds: pipeline.DefaultBounds()}, time.Now)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v, want an error with %s and the file", file, err, want)
		}
		if fault.Is(err, fault.Invalid) != (file == bad) || errors.Is(err, os.ErrNotExist) != (want == "open") {
			t.Errorf("%s: got %v, which is of another kind", file, err)
		}
	}
}

func testWatcherNoFileIsTheDefault(t *testing.T) {
	t.Parallel()
	w := watch(t, newWatcher(t, "", 0))
	if got, want := w.Current().Hash(), pipeline.Default().Hash(); got != want {
		t.Errorf("got %s, want the default's %s", got, want)
	}
}

func testWatcherConcurrentReaders(t *testing.T) {
	t.Parallel()
	v := newVolume(t, wide(10))
	w := watch(t, newWatcher(t, v.file(), noPoll))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if r := w.Current(); r.Hash() != parse(t, string(r.Document())).Hash() {
					t.Error("the hash of a revision differs from that of its document")
					return
				}
			}
		})
	}
	v.publish(wide(11))
	w.takes(11)
	close(stop)
	readers.Wait()
}

func TestRevision(t *testing.T) {
	t.Parallel()
	p := parse(t, strings.Replace(minimal, "[{format: jpeg}]",
		"[{format: jpeg}, {format: avif, target: {ssimulacra2: 70, min: 40, max: 80}}]", 1))
	before := p.Hash()
	r := pipeline.NewRevision(p)
	document := string(r.Document())
	if r.Hash() != before || r.Name() != "small" || len(r.ID()) != 12 || document != string(p.Document()) {
		t.Errorf("got %s %s %s", r.ID(), r.Name(), r.Hash())
	}
	p.Spec.Renditions[0].Width++
	p.Spec.Renditions[0].Formats[0].Quality++
	p.Spec.Renditions[0].Formats[1].Target.Min++
	p.Spec.Accept[0] = "x"
	if string(r.Document()) != document || r.Hash() != before {
		t.Error("a revision changed with the pipeline that it was created from")
	}
	if p.Hash() == before {
		t.Error("the hash does not change with the pipeline")
	}
	p = parse(t, minimal)
	revision := pipeline.NewRevision(p)
	p.Spec.Accept[0], p.Spec.Accept[1] = p.Spec.Accept[1], p.Spec.Accept[0]
	if pipeline.NewRevision(p).ID() != revision.ID() {
		t.Error("the order of accept changed the ID")
	}
	p.Spec.Retry.MaxAttempts++
	if pipeline.NewRevision(p).ID() == revision.ID() {
		t.Error("another retry did not change the ID")
	}
}

// A field that earlier releases do not have must not change what they report.
func TestRevisionOriginals(t *testing.T) {
	t.Parallel()
	const before = "f130fd289aa3"
	off := parse(t, minimal+"  originals: {keep: false}\n")
	if id := pipeline.NewRevision(off).ID(); id != before || strings.Contains(string(off.Document()), "originals") {
		t.Errorf("not kept: got revision %s, want %s as before the field, of\n%s", id, before, off.Document())
	}
	bounds := pipeline.DefaultBounds()
	bounds.AllowOriginals = true
	on := parse(t, minimal+"  originals: {keep: true}\n")
	if got := bounds.NewRevision(on); !got.Spec().Originals.Keep || got.ID() == bounds.NewRevision(off).ID() {
		t.Errorf("kept: got %s of\n%s", got.ID(), got.Document())
	}
	if stored, err := pipeline.ParseStored(on.Document(), off.Hash()); err != nil || !stored.Spec.Originals.Keep {
		t.Errorf("stored: got %+v, %v", stored.Spec.Originals, err)
	}
}

func BenchmarkRevisionHash(b *testing.B) {
	r := pipeline.NewRevision(pipeline.Default())
	for b.Loop() {
		_ = r.Hash()
	}
}
