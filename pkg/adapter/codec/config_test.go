package codec_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/codec"
	"vitrine.io/pkg/foundation/media"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	t.Run("invalid_fields", testConfigInvalidFields)
	t.Run("missing_files", testConfigMissingFiles)
	t.Run("bare_program_name", testConfigBareProgramName)
	t.Run("allocator_preload", testConfigAllocatorPreload)
	t.Run("program_not_executable", testConfigProgramNotExecutable)
}

func testConfigInvalidFields(t *testing.T) {
	t.Parallel()
	if wrong := (codec.Config{}).Validate(); len(wrong) != 8 {
		t.Errorf("an empty configuration has %d invalid fields, want 8: %v", len(wrong), wrong)
	}
	good := codec.Config{
		Path: "codec", RecycleAfter: 500, MaxRSS: 512 << 20, AddressSpace: 2 << 30, StartTimeout: time.Second,
		StartBackoff: time.Second, ShutdownGrace: time.Second, Sandbox: "on", Preload: "auto",
	}
	if wrong := good.Validate(); wrong != nil {
		t.Errorf("the defaults are invalid: %v", wrong)
	}
	for name, change := range map[string]func(*codec.Config){
		"CHILDREN":      func(c *codec.Config) { c.Children = -1 },
		"ADDRESS_SPACE": func(c *codec.Config) { c.AddressSpace = 1 << 20 },
		"SANDBOX":       func(c *codec.Config) { c.Sandbox = "false" },
		"START_BACKOFF": func(c *codec.Config) { c.StartBackoff = time.Hour },
	} {
		bad := good
		change(&bad)
		if wrong := bad.Validate(); len(wrong) != 1 || wrong[0].Path != name || wrong[0].Detail == "" {
			t.Errorf("%s: got %v", name, wrong)
		}
	}
}

func testConfigMissingFiles(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*codec.Config){
		"find codec program": func(c *codec.Config) { c.Path = "no-such-codec" },
		"find allocator":     func(c *codec.Config) { c.Preload = "/no/such/library.so" },
	} {
		cfg := fakeConfig()
		change(&cfg)
		if _, err := codec.New(cfg, prometheus.NewRegistry(), zap.NewNop()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

func testConfigBareProgramName(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := newFixture(t, func(c *codec.Config) { c.Path = filepath.Base(self) })
	r.mustRender(t, "ok")
}

func testConfigAllocatorPreload(t *testing.T) {
	t.Parallel()
	const jemalloc = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"
	library := filepath.Join(t.TempDir(), "liballoc.so") // no library: the loader ignores it
	touch(library)
	r := newFixture(t, func(c *codec.Config) { c.Preload = library })
	if got := r.mustRender(t, "env"); !strings.Contains(got, "LD_PRELOAD="+library) || !strings.Contains(got, "MALLOC_CONF=") {
		t.Errorf("a child's environment is %q, want %s preloaded", got, library)
	}
	auto := newFixture(t, func(c *codec.Config) { c.Preload = "auto" })
	if got := auto.mustRender(t, "env"); strings.Contains(got, "LD_PRELOAD="+jemalloc) != exists(jemalloc) {
		t.Errorf("a child's environment is %q, but %s exists: %v", got, jemalloc, exists(jemalloc))
	}
}

func testConfigProgramNotExecutable(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "codec")
	if err := os.WriteFile(program, []byte("\x7fELF, but not really"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := newFixture(t, func(c *codec.Config) { c.Path = program })
	got := r.failure(t, "ok", longDeadline)
	if got.Code != media.CodecUnavailable || !strings.Contains(got.Error(), "exec format") {
		t.Errorf("got %v, want codec_unavailable", got)
	}
}
