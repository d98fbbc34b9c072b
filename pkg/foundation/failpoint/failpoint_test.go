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

// root is the repository, seen from this package.
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

// mentions are the places where the code says failpoint.Name, and which of them are calls of Hit.
type mentions struct{ hits, crashes map[string][]string }

// look reads all our code but this package.
func look(t *testing.T) mentions {
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
		if call, ok := n.(*ast.CallExpr); ok && ours(call.Fun) == "Hit" {
			name := ours(call.Args[0])
			if name == "" {
				t.Errorf("%s: a step is named by its constant, or a misspelt one compiles", path)
			}
			m.hits[name] = append(m.hits[name], path)
		}
		if name := ours(n); crashTest && name != "" {
			m.crashes[name] = append(m.crashes[name], path)
		}
		return true
	})
}

// ours returns X of failpoint.X, or "".
func ours(n ast.Node) string {
	selector, ok := n.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if room, ok := selector.X.(*ast.Ident); !ok || room.Name != "failpoint" {
		return ""
	}
	return selector.Sel.Name
}

func TestEveryStepIsAtOnePlaceAndHasACrashTest(t *testing.T) {
	t.Parallel()
	found := look(t)
	values := map[string]string{}
	names := declared(t)
	if len(names) < 15 {
		t.Errorf("saw %d names: this test no longer looks at the right thing", len(names))
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range names {
		if !strings.Contains(string(page), "`"+value+"`") {
			t.Errorf("docs/architecture.md says nothing of %s", value)
		}
		if places := found.hits[name]; len(places) != 1 {
			t.Errorf("%s is hit at %d places, not at one: %v", name, len(places), places)
		}
		if len(found.crashes[name]) == 0 {
			t.Errorf("nothing in pkg/test/system/crash_*_test.go crashes at %s", name)
		}
		if other := values[value]; other != "" || !regexp.MustCompile(`^[a-z]+(\.[a-z]+)+$`).MatchString(value) {
			t.Errorf("%s is %q, which is no name or also %s's", name, value, other)
		}
		values[value] = name
	}
}

func TestNothingHappensInOrdinaryPrograms(t *testing.T) {
	t.Setenv("VITRINE_FAILPOINT", string(failpoint.WorkerFetched))
	failpoint.Hit(failpoint.WorkerFetched)
	if n := testing.AllocsPerRun(100, func() { failpoint.Hit(failpoint.WorkerFetched) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestWithTheTag runs the tests of the build that crashes, which the ordinary build does not contain.
func TestWithTheTag(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-tags", "failpoint", "-run", "Step|Plan", "-v", ".")
	cmd.Env = append(os.Environ(), "GOCOVERDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestAStepKills") {
		t.Errorf("%v:\n%s", err, out)
	}
}
