package codec

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// environment returns the whole environment of a child.
func environment(preload string) []string {
	env := []string{
		"VIPS_BLOCK_UNTRUSTED=1",   // disables the loaders of libvips that are not fuzzed
		"VIPS_WARNING=0",           // libvips warns of every unusual tag in a source
		"VIPS_DISC_THRESHOLD=512g", // never spill pixels to /tmp, which may be read-only; memory is bounded otherwise
		"GOMAXPROCS=1",             // the work is in C, on one thread
	}
	if preload != "" {
		env = append(env, "LD_PRELOAD="+preload, "MALLOC_CONF=background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0")
	}
	return env
}

// withoutVectors prevents libvips from compiling inner loops with liborc, which uses SIMD instructions. Resizing then
// takes about twice the time (measured).
const withoutVectors = "VIPS_NOVECTOR=1"

// locate finds a program. It looks for a bare name in the directory of this program and then in PATH. A path is used
// unchanged.
func locate(name string) (string, error) {
	if !strings.Contains(name, "/") {
		if self, err := os.Executable(); err == nil {
			if path, err := exec.LookPath(filepath.Join(filepath.Dir(self), name)); err == nil {
				return path, nil
			}
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find codec program: %w", err)
	}
	return filepath.Abs(path) // children run in another directory
}

// jemalloc lists the paths of jemalloc in distributions. With glibc's allocator a codec needs seven times the memory
// (measured).
var jemalloc = []string{
	"/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", "/usr/lib/aarch64-linux-gnu/libjemalloc.so.2",
	"/usr/lib64/libjemalloc.so.2", "/usr/lib/libjemalloc.so.2",
}

// allocator returns the library to preload, or "" for none.
func allocator(preload string) (string, error) {
	switch preload {
	case "none":
		return "", nil
	case "auto":
		for _, path := range jemalloc {
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
		return "", nil
	default:
		if _, err := os.Stat(preload); err != nil {
			return "", fmt.Errorf("find allocator: %w", err)
		}
		return preload, nil
	}
}
