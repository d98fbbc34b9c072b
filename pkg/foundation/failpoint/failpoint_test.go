//go:build !failpoint

package failpoint_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"vitrine.io/pkg/foundation/failpoint"
)

// root is the repository's directory, relative to this package.
const root = "../../.."

// declared returns the constants of name.go and their values.
func declared(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "name.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			for i, name := range spec.Names {
				value, err := strconv.Unquote(spec.Values[i].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				names[name.Name] = value
			}
		}
		return true
	})
	return names
}

// mentions are the files that use a step, by the step's constant: in a call of Hit, and in a crash test.
type mentions struct{ hits, crashes map[string][]string }

// findMentions parses all Go files of cmd and pkg except this package.
func findMentions(t *testing.T) mentions {
	t.Helper()
	found := mentions{hits: map[string][]string{}, crashes: map[string][]string{}}
	for _, dir := range []string{"cmd", "pkg"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() && entry.Name() == "failpoint" {
				return filepath.SkipDir
			}
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			found.add(t, path, file)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func (m mentions) add(t *testing.T, path string, file *ast.File) {
	t.Helper()
	crashTest := regexp.MustCompile(`/pkg/test/system/crash_([a-z]+_)?test\.go$`).MatchString(filepath.ToSlash(path))
	ast.Inspect(file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && stepName(call.Fun) == "Hit" {
			name := stepName(call.Args[0])
			if name == "" {
				t.Errorf("%s: Hit takes a constant of package failpoint, so that a misspelt step does not compile", path)
			}
			m.hits[name] = append(m.hits[name], path)
		}
		if name := stepName(n); crashTest && name != "" {
			m.crashes[name] = append(m.crashes[name], path)
		}
		return true
	})
}

// stepName returns X of the expression failpoint.X, or "".
func stepName(n ast.Node) string {
	selector, ok := n.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if pkg, ok := selector.X.(*ast.Ident); !ok || pkg.Name != "failpoint" {
		return ""
	}
	return selector.Sel.Name
}

func TestNames(t *testing.T) {
	t.Parallel()
	found := findMentions(t)
	values := map[string]string{}
	names := declared(t)
	if len(names) < 15 {
		t.Errorf("found %d names: the test reads the wrong file", len(names))
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range names {
		if !strings.Contains(string(page), "`"+value+"`") {
			t.Errorf("docs/architecture.md does not list %s", value)
		}
		if places := found.hits[name]; len(places) != 1 {
			t.Errorf("%s has %d calls of Hit, want 1: %v", name, len(places), places)
		}
		if len(found.crashes[name]) == 0 {
			t.Errorf("no test in pkg/test/system/crash_*_test.go uses %s", name)
		}
		if other := values[value]; other != "" || !regexp.MustCompile(`^[a-z]+(\.[a-z]+)+$`).MatchString(value) {
			t.Errorf("%s is %q, which is malformed or the same as %s", name, value, other)
		}
		values[value] = name
	}
}

func TestHit(t *testing.T) {
	t.Setenv("VITRINE_FAILPOINT", string(failpoint.WorkerFetched))
	failpoint.Hit(failpoint.WorkerFetched)
	if n := testing.AllocsPerRun(100, func() { failpoint.Hit(failpoint.WorkerFetched) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestTaggedBuild runs the tests of on_internal_test.go, which the ordinary build does not contain.
func TestTaggedBuild(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-tags", "failpoint", "-run", "TestTaggedHit|TestParse",
		"-v", ".")
	cmd.Env = append(os.Environ(), "GOCOVERDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestTaggedHit") {
		t.Errorf("%v:\n%s", err, out)
	}
}
