package pkg_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// root is the repository's directory, relative to this package.
const root = ".."

// module is the prefix of the repository's import paths.
const module = "vitrine.io/"

// libvips are the import paths of libvips' C bindings, and of the package that uses them.
var libvips = []string{"github.com/davidbyttow/govips/v2", module + "pkg/adapter/imaging"}

// kubernetes are the libraries of Kubernetes, which only the controller needs.
var kubernetes = []string{"k8s.io", "sigs.k8s.io/controller-runtime", module + "pkg/adapter/controller"}

// forbidden are the packages that a program must not link, with all packages below them. Only the codec links libvips. The
// codec processes untrusted files in a sandbox, so it links nothing that only its parent needs.
var forbidden = map[string][]string{
	"api": slices.Concat(libvips, kubernetes), "worker": slices.Concat(libvips, kubernetes),
	"vitrine": slices.Concat(libvips, kubernetes), "controller": libvips,
	"codec": slices.Concat(kubernetes, []string{
		"go.uber.org/zap", "github.com/prometheus", "github.com/google/uuid", "golang.org/x/sync/singleflight",
		module + "pkg/adapter/codec",
	}),
}

func TestPrograms(t *testing.T) {
	t.Parallel()
	for program, packages := range forbidden {
		t.Run(program+"_links_no_forbidden_package", func(t *testing.T) {
			t.Parallel()
			for _, wrong := range checkDeps("cmd/"+program, dependencies(t, program), packages) {
				t.Error(wrong)
			}
		})
	}
	t.Run("controller_links_kubernetes", func(t *testing.T) {
		t.Parallel()
		deps := dependencies(t, "controller")
		for _, pkg := range kubernetes {
			if len(checkDeps("cmd/controller", deps, []string{pkg})) == 0 {
				t.Errorf("cmd/controller does not depend on %s", pkg)
			}
		}
	})
	t.Run("codec_links_libvips", func(t *testing.T) { // or the other subtests check packages that no longer exist
		t.Parallel()
		for _, pkg := range libvips {
			if len(checkDeps("cmd/codec", dependencies(t, "codec"), []string{pkg})) == 0 {
				t.Errorf("cmd/codec does not depend on %s", pkg)
			}
		}
	})
}

// checkDeps returns a problem for each dependency of a program that is a forbidden package or below one.
func checkDeps(program string, deps, forbidden []string) []string {
	var wrong []string
	for _, dep := range deps {
		for _, pkg := range forbidden {
			if dep == pkg || strings.HasPrefix(dep, pkg+"/") {
				wrong = append(wrong, fmt.Sprintf("%s depends on %s", program, dep))
			}
		}
	}
	return wrong
}

func TestCheckDeps(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		dep  string
		want int
	}{
		"the_package":      {module + "pkg/adapter/imaging", 1},
		"below_it":         {"github.com/davidbyttow/govips/v2/vips", 1},
		"another_package":  {module + "pkg/adapter/codec", 0},
		"another_module":   {"github.com/davidbyttow/govipsish", 0},
		"only_a_prefix":    {module + "pkg/imagingless/and/something/other", 0},
		"standard_library": {"image", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if wrong := checkDeps("cmd/x", []string{"fmt", c.dep}, libvips); len(wrong) != c.want {
				t.Errorf("found %q, want %d violations", wrong, c.want)
			}
		})
	}
}

// dependencies returns the import paths of all packages that a program links.
func dependencies(t *testing.T, program string) []string {
	t.Helper()
	var deps []string
	for _, p := range goList(t, "-deps", "./cmd/"+program) {
		deps = append(deps, p.ImportPath)
	}
	return deps
}

// listed is a package as go list describes it.
type listed struct {
	ImportPath, Dir            string
	Imports, GoFiles, CgoFiles []string
}

// goList runs go list in the repository and returns one entry for each package.
func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Imports,GoFiles,CgoFiles"}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1") // without cgo, go list omits the files with libvips
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var packages []listed
	for decoder := json.NewDecoder(out); ; {
		var p listed
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return packages
}
