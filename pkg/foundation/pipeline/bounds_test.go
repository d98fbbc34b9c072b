package pipeline_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/platform/config"
)

// loadBounds returns the bounds that a program has in this environment.
func loadBounds(environ ...string) (pipeline.Bounds, error) {
	cfg, _, err := config.Load[struct {
		Pipeline pipeline.Config `envPrefix:"PIPELINE_"`
	}](nil, environ)
	return cfg.Pipeline.Bounds, err
}

func TestBounds(t *testing.T) {
	t.Parallel()
	t.Run("defaults_of_the_environment", testBoundsDefaultsOfTheEnvironment)
	t.Run("invalid_setting", testBoundsInvalidSetting)
	t.Run("value_beyond_a_bound_is_refused", testBoundsValueBeyondABoundIsRefused)
	t.Run("revision_covers_bounds", testBoundsRevisionCoversBounds)
	t.Run("watcher_refuses_a_file_beyond_them", testBoundsWatcherRefusesAFileBeyondThem)
	t.Run("networks_and_ports", testBoundsNetworksAndPorts)
}

func testBoundsDefaultsOfTheEnvironment(t *testing.T) {
	t.Parallel()
	got, err := loadBounds()
	if err != nil || fmt.Sprint(got) != fmt.Sprint(pipeline.DefaultBounds()) {
		t.Errorf("got %+v, %v, want %+v", got, err, pipeline.DefaultBounds())
	}
	if wrong := pipeline.DefaultBounds().Validate(); len(wrong) != 0 {
		t.Errorf("got %v", wrong)
	}
	p := parse(t, strings.Replace(minimal, "spec:", `spec:
  limits: {maxBytes: 256Mi, maxPixels: 1000000000, deadline: 10m}
  fetch: {timeout: 1h, perHost: 1000}
  retry: {maxAge: 720h}`, 1))
	if _, err := pipeline.DefaultBounds().Parse(p.Document()); err != nil {
		t.Errorf("the default bounds refuse a valid pipeline: %v", err)
	}
}

func testBoundsInvalidSetting(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{
		"ALLOW_CIDRS=10.0.0.1":              "ALLOW_CIDRS",
		"ALLOW_CIDRS=10.0.0.1/8":            "10.0.0.0/8",
		"ALLOW_CIDRS=::ffff:10.0.0.0/104":   "IPv4",
		"ALLOW_PORTS=80,0":                  "ALLOW_PORTS",
		"ALLOW_PORTS=65536":                 "ALLOW_PORTS",
		"MAX_RENDITIONS=33":                 "MAX_RENDITIONS",
		"MAX_BYTES=1023":                    "MAX_BYTES",
		"MAX_PIXELS=0":                      "MAX_PIXELS",
		"MAX_DEADLINE=11m":                  "MAX_DEADLINE",
		"MAX_TIMEOUT=61m":                   "MAX_TIMEOUT",
		"MAX_PER_HOST=0":                    "MAX_PER_HOST",
		"MAX_AGE=721h":                      "MAX_AGE",
		"ALLOW_CIDRS=10.0.0.0/8,nonsense/8": "nonsense",
	} {
		if _, err := loadBounds("VITRINE_PIPELINE_" + setting); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", setting, err, want)
		}
	}
}

func testBoundsValueBeyondABoundIsRefused(t *testing.T) {
	t.Parallel()
	bounds, err := loadBounds("VITRINE_PIPELINE_MAX_RENDITIONS=1", "VITRINE_PIPELINE_MAX_BYTES=1048576",
		"VITRINE_PIPELINE_MAX_PIXELS=1000", "VITRINE_PIPELINE_MAX_DEADLINE=10s", "VITRINE_PIPELINE_MAX_TIMEOUT=20s",
		"VITRINE_PIPELINE_MAX_PER_HOST=2", "VITRINE_PIPELINE_MAX_AGE=1h")
	if err != nil {
		t.Fatal(err)
	}
	within := minimal + "  limits: {maxBytes: 1Mi, maxPixels: 1000, deadline: 10s}\n" +
		"  fetch: {timeout: 20s, perHost: 2}\n  retry: {maxAge: 1h}\n"
	if _, err := bounds.Parse([]byte(within)); err != nil {
		t.Errorf("a pipeline at the bounds is refused: %v", err)
	}
	_, err = bounds.Parse(pipeline.Default().Document())
	if !fault.Is(err, fault.Invalid) || fault.CodeOf(err) != pipeline.ExceedsBounds {
		t.Fatalf("got %v, want %s", err, pipeline.ExceedsBounds)
	}
	var got []string
	for _, f := range fault.From(err).Fields {
		got = append(got, f.Path)
	}
	want := []string{
		"spec.renditions", "spec.limits.maxBytes", "spec.limits.maxPixels", "spec.limits.deadline", "spec.fetch.timeout",
		"spec.fetch.perHost", "spec.retry.maxAge",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, text := range []string{
		"spec.limits.maxBytes: must be at most 1Mi", "VITRINE_PIPELINE_MAX_BYTES",
		"spec.limits.deadline: must be at most 10s", "spec.retry.maxAge: must be at most 1h",
	} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in %v", text, err)
		}
	}
	keeps := []byte(within + "  originals: {keep: true}\n")
	if _, err := bounds.Parse(keeps); fault.CodeOf(err) != pipeline.ExceedsBounds ||
		!strings.Contains(err.Error(), "VITRINE_S3_ORIGINALS_BUCKET") {
		t.Errorf("originals without a bucket: got %v", err)
	}
	if bounds.AllowOriginals = true; fault.CodeOf(second(bounds.Parse(keeps))) != "" {
		t.Errorf("originals with a bucket: got %v", second(bounds.Parse(keeps)))
	}
	if _, err := bounds.Parse([]byte("kind: Pod")); fault.CodeOf(err) == pipeline.ExceedsBounds || err == nil {
		t.Errorf("got %v of an invalid document", err)
	}
}

func second(_ pipeline.Pipeline, err error) error { return err }

func testBoundsRevisionCoversBounds(t *testing.T) {
	t.Parallel()
	p := parse(t, minimal)
	first := pipeline.DefaultBounds()
	first.AllowCIDRs = []string{"10.0.0.0/8", "fd00::/8"}
	second := first
	second.AllowCIDRs, second.AllowPorts = []string{"fd00::/8", "10.0.0.0/8", "fd00::/8"}, []string{"443", "80"}
	if first.NewRevision(p).ID() != second.NewRevision(p).ID() {
		t.Error("the order of a list changes the revision")
	}
	none, empty := pipeline.DefaultBounds(), pipeline.DefaultBounds()
	empty.AllowCIDRs = []string{}
	if none.NewRevision(p).ID() != empty.NewRevision(p).ID() {
		t.Error("an empty list and none make different revisions")
	}
	for name, change := range map[string]func(*pipeline.Bounds){
		"cidrs": func(b *pipeline.Bounds) { b.AllowCIDRs = nil }, "ports": func(b *pipeline.Bounds) { b.AllowPorts = []string{"1"} },
		"ceiling": func(b *pipeline.Bounds) { b.MaxTimeout = time.Minute },
	} {
		other := first
		change(&other)
		if a, b := first.NewRevision(p), other.NewRevision(p); a.ID() == b.ID() || a.Hash() != b.Hash() {
			t.Errorf("%s: got %s %s and %s %s, want another revision with the same hash", name, a.ID(), a.Hash(), b.ID(), b.Hash())
		}
	}
}

func testBoundsWatcherRefusesAFileBeyondThem(t *testing.T) {
	t.Parallel()
	bounds := pipeline.DefaultBounds()
	bounds.MaxPerHost = 3
	_, err := pipeline.NewWatcher(pipeline.Config{Bounds: bounds}, time.Now)
	if fault.CodeOf(err) != pipeline.ExceedsBounds {
		t.Errorf("the built-in pipeline: got %v", err)
	}
	v := newVolume(t, minimal+"  fetch: {perHost: 3}\n")
	w, err := pipeline.NewWatcher(pipeline.Config{File: v.file(), Bounds: bounds}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := w.Current().ID(), bounds.NewRevision(parse(t, minimal+"  fetch: {perHost: 3}\n")).ID(); got != want {
		t.Errorf("got revision %s, want %s", got, want)
	}
	v.publish(minimal + "  fetch: {perHost: 4}\n")
	w.Reload(func(pipeline.State) {})
	w.Reload(func(pipeline.State) {})
	if s := w.State(); fault.CodeOf(s.Err) != pipeline.ExceedsBounds || s.Revision.Spec().Fetch.PerHost != 3 {
		t.Errorf("got %v with perHost %d", s.Err, s.Revision.Spec().Fetch.PerHost)
	}
}

func testBoundsNetworksAndPorts(t *testing.T) {
	t.Parallel()
	b, err := loadBounds("VITRINE_PIPELINE_ALLOW_CIDRS=10.0.0.0/8, ::1/128", "VITRINE_PIPELINE_ALLOW_PORTS=,")
	if err != nil || fmt.Sprint(b.Networks()) != "[10.0.0.0/8 ::1/128]" || len(b.Ports()) != 0 {
		t.Errorf("got %v %v, %v", b.Networks(), b.Ports(), err)
	}
	if got := fmt.Sprint(pipeline.DefaultBounds().Ports()); got != "[80 443]" {
		t.Errorf("got %s", got)
	}
}

func TestParseStored(t *testing.T) {
	t.Parallel()
	p := parse(t, minimal)
	older := strings.Replace(string(p.Document()), `"fetch":{`, `"fetch":{"allowCIDRs":["10.0.0.0/8"],"allowPorts":[80],`, 1)
	if got, err := pipeline.ParseStored([]byte(older), p.Hash()); err != nil || got.Hash() != p.Hash() {
		t.Errorf("the document of an older version: got %s, %v", got.Document(), err)
	}
	for _, document := range []string{"nonsense", string(pipeline.Default().Document())} {
		if _, err := pipeline.ParseStored([]byte(document), p.Hash()); !fault.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
	}
}
