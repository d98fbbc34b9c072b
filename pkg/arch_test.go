// Package pkg_test holds the house to its plan: every room's door plate says exactly what the room imports, imports only go
// the allowed way, and files and functions stay small. The rules are in arch_rules_test.go.
package pkg_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the repository, seen from this package.
const root = ".."

// goList runs go list in the repository and returns one entry for each package.
func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Imports,GoFiles,CgoFiles"}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1") // or go list leaves out the files with libvips
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

type listed struct {
	ImportPath, Dir            string
	Imports, GoFiles, CgoFiles []string
}

// rooms reads all our packages, programs included. A package of tests only, like this one, is none.
func rooms(t *testing.T) []room {
	t.Helper()
	var all []room
	for _, p := range goList(t, "./cmd/...", "./pkg/...", "./migrations/...") {
		if len(p.GoFiles)+len(p.CgoFiles) == 0 {
			continue
		}
		r := room{path: strings.TrimPrefix(p.ImportPath, module), imports: p.Imports}
		if r.kind() != "cmd" {
			source, err := os.ReadFile(filepath.Join(p.Dir, "doc.go"))
			if err != nil {
				t.Errorf("%s has no doc.go: %v", r.path, err)
				continue
			}
			if r.plate, err = plateOf(source); err != nil {
				t.Errorf("%s/doc.go: %v", r.path, err)
				continue
			}
		}
		all = append(all, r)
	}
	return all
}

func TestEveryDoorPlateSaysWhatTheRoomImports(t *testing.T) {
	t.Parallel()
	for _, r := range rooms(t) {
		if r.kind() == "cmd" {
			continue
		}
		for _, wrong := range checkPlate(r) {
			t.Error(wrong)
		}
	}
}

func TestImportsGoFromProgramsToEdgesToCoreToLeafs(t *testing.T) {
	t.Parallel()
	all := rooms(t)
	kinds := map[string]string{}
	for _, r := range all {
		kinds[r.name()] = r.kind()
	}
	for _, r := range all {
		for _, wrong := range checkDirection(r, kinds) {
			t.Error(wrong)
		}
	}
}

func TestOnlyTheCodecLinksLibvips(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"api", "worker", "vitrine"} {
		var deps []string
		for _, p := range goList(t, "-deps", "./cmd/"+program) {
			deps = append(deps, p.ImportPath)
		}
		for _, wrong := range checkDeps("cmd/"+program, deps) {
			t.Error(wrong)
		}
	}
	codec := goList(t, "-deps", "./cmd/codec")
	if !slices.ContainsFunc(codec, func(p listed) bool { return outsideName(p.ImportPath) == "govips" }) {
		t.Error("cmd/codec does not link libvips: this test no longer looks at the right thing")
	}
}

func TestFilesAndFunctionsAreWithinTheirBudgets(t *testing.T) {
	t.Parallel()
	files := 0
	for _, dir := range []string{"cmd", "pkg", "migrations"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			source, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			files++
			for _, wrong := range checkBudgets(filepath.ToSlash(name), source) {
				t.Error(wrong)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if files < 50 {
		t.Errorf("saw %d files: this test no longer looks at the right thing", files)
	}
}

// The rest of this file shows that each rule fires.

func TestAPlateThatDiffersFromTheImportsIsWrong(t *testing.T) {
	t.Parallel()
	imports := []string{
		"context", "C", module + "pkg/fault", module + "pkg/catalog/storetest", module + "migrations",
		"gorm.io/driver/postgres", "gorm.io/gorm", "github.com/twmb/franz-go/pkg/kfake", "github.com/jackc/pgx/v5/pgconn",
	}
	const right = "Room: edge. Doors: catalog/storetest fault migrations. Outside: gorm kfake pgx."
	if wrong := checkPlate(room{path: "pkg/x", plate: right, imports: imports}); wrong != nil {
		t.Errorf("a right plate is found wrong: %q", wrong)
	}
	if wrong := checkPlate(room{path: "pkg/x", plate: "Room: leaf. Doors: none. Outside: none."}); wrong != nil {
		t.Errorf("a right plate is found wrong: %q", wrong)
	}
	for what, plate := range map[string]string{
		"door missing":      "Room: edge. Doors: fault migrations. Outside: gorm kfake pgx.",
		"door too many":     "Room: edge. Doors: catalog/storetest event fault migrations. Outside: gorm kfake pgx.",
		"module missing":    "Room: edge. Doors: catalog/storetest fault migrations. Outside: gorm kfake.",
		"module too many":   "Room: edge. Doors: catalog/storetest fault migrations. Outside: gorm kfake pgx zap.",
		"commas":            "Room: edge. Doors: catalog/storetest, fault, migrations. Outside: gorm, kfake, pgx.",
		"not sorted":        "Room: edge. Doors: fault catalog/storetest migrations. Outside: gorm kfake pgx.",
		"no such kind":      "Room: attic. Doors: catalog/storetest fault migrations. Outside: gorm kfake pgx.",
		"a program's kind":  "Room: cmd. Doors: catalog/storetest fault migrations. Outside: gorm kfake pgx.",
		"no Outside at all": "Room: edge. Doors: catalog/storetest fault migrations.",
	} {
		if wrong := checkPlate(room{path: "pkg/x", plate: plate, imports: imports}); len(wrong) != 1 {
			t.Errorf("%s: found %q, want one violation", what, wrong)
		}
	}
	stranger := room{path: "pkg/x", plate: "Room: leaf. Doors: none. Outside: none.", imports: []string{"example.com/new"}}
	if wrong := checkPlate(stranger); len(wrong) != 1 || !strings.Contains(wrong[0], "example.com/new") {
		t.Errorf("a module without a short name: found %q, want one violation", wrong)
	}
}

func TestAnImportTheWrongWayIsWrong(t *testing.T) {
	t.Parallel()
	kinds := map[string]string{
		"event": "leaf", "fault": "leaf", "catalog": "core", "relay": "core", "kafka": "edge", "postgres": "edge",
		"config": "tool", "testenv": "tool", "catalog/storetest": "suite", "kafka/kafkatest": "suite", "cmd/api": "cmd",
	}
	check := func(path, kind, imported string) []string {
		return checkDirection(room{path: path, plate: "Room: " + kind + ".", imports: []string{imported}}, kinds)
	}
	for _, c := range []struct {
		path, kind string
		may, not   []string
	}{
		{"pkg/event", "leaf", []string{"fault"}, []string{"catalog", "kafka", "config", "catalog/storetest", "testenv"}},
		{"pkg/relay", "core", []string{"fault", "catalog"}, []string{"kafka", "config", "catalog/storetest"}},
		{"pkg/kafka", "edge", []string{"fault", "catalog"}, []string{"postgres", "config", "kafka/kafkatest"}},
		{"pkg/kafka/kafkatest", "suite", []string{"fault", "relay", "kafka"}, []string{"postgres", "catalog/storetest"}},
		{"pkg/bench", "tool", []string{"fault", "relay", "kafka", "testenv"}, []string{"catalog/storetest"}},
		{"cmd/api", "", []string{"fault", "relay", "kafka", "config"}, []string{"kafka/kafkatest"}},
	} {
		for _, door := range c.may {
			if wrong := check(c.path, c.kind, module+"pkg/"+door); wrong != nil {
				t.Errorf("%s -> %s is found wrong: %q", c.path, door, wrong)
			}
		}
		for _, door := range c.not {
			if wrong := check(c.path, c.kind, module+"pkg/"+door); wrong == nil {
				t.Errorf("%s -> %s is not found", c.path, door)
			}
		}
		if wrong := check(c.path, c.kind, module+"cmd/api"); wrong == nil {
			t.Errorf("%s -> cmd/api is not found", c.path)
		}
	}
	if wrong := check("cmd/api", "", module+"pkg/testenv"); len(wrong) != 1 {
		t.Errorf("a program with testenv in it: found %q, want one violation", wrong)
	}
	for imported, want := range map[string]int{"go.uber.org/zap": 0, "github.com/jackc/pgx/v5": 1, "net/http": 0} {
		if wrong := check("pkg/relay", "core", imported); len(wrong) != want {
			t.Errorf("core -> %s: found %q, want %d violations", imported, wrong, want)
		}
	}
}

func TestLibvipsInAProgramIsWrong(t *testing.T) {
	t.Parallel()
	for dep, want := range map[string]int{
		module + "pkg/imaging":                         1,
		"github.com/davidbyttow/govips/v2/vips":        1,
		module + "pkg/codec":                           0,
		"github.com/davidbyttow/govipsish":             0,
		module + "pkg/imagingless/and/something/other": 0,
	} {
		if wrong := checkDeps("cmd/x", []string{"fmt", dep}); len(wrong) != want {
			t.Errorf("%s: found %q, want %d violations", dep, wrong, want)
		}
	}
}

func TestWhatIsTooLongIsWrong(t *testing.T) {
	t.Parallel()
	file := func(lines int) string { return "package x\n" + strings.Repeat("\n", lines-1) }
	fn := func(lines int) string { return "package x\n\nfunc f() {\n" + strings.Repeat("\n", lines-2) + "}\n" }
	for _, c := range []struct {
		name, source string
		want         int
	}{
		{"pkg/x/x.go", file(maxFile), 0},
		{"pkg/x/x.go", file(maxFile + 1), 1},
		{"pkg/x/x_test.go", file(maxTestFile), 0},
		{"pkg/x/x_test.go", file(maxTestFile + 1), 1},
		{"cmd/x/main.go", file(maxMain), 0},
		{"cmd/x/main.go", file(maxMain + 1), 1},
		{"cmd/x/other.go", file(maxMain + 1), 0},
		{"pkg/x/x.go", fn(maxFunc), 0},
		{"pkg/x/x.go", fn(maxFunc + 1), 1},
		{"pkg/x/x_test.go", fn(maxTestFunc), 0},
		{"pkg/x/x_test.go", fn(maxTestFunc + 1), 1},
		{"pkg/x/x.go", "// Code generated by hand. DO NOT EDIT.\n" + file(maxFile+1), 0},
		{"pkg/x/x.go", "package", 1},
	} {
		if wrong := checkBudgets(c.name, []byte(c.source)); len(wrong) != c.want {
			t.Errorf("%s of %d bytes: found %q, want %d violations", c.name, len(c.source), wrong, c.want)
		}
	}
}

func TestAPlateIsTheLastLineOfThePackageComment(t *testing.T) {
	t.Parallel()
	const plate = "Room: leaf. Doors: none. Outside: none."
	for source, want := range map[string]string{
		"// Package x is x.\n//\n// " + plate + "\npackage x\n":       plate,
		"// " + plate + "\n\n// Package x is x.\npackage x\n":         "",
		"// Package x is x.\n//\n// " + plate + "\n\npackage x\n":     "",
		"// Package x is x.\n//\n// " + plate + " Really.\npackage x": plate + " Really.",
		"package x\n": "",
		"pack":        "",
	} {
		got, err := plateOf([]byte(source))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, error %v; want %q", source, got, err, want)
		}
	}
	if !strings.Contains(fmt.Sprint(plateOf([]byte("// Package x is x.\npackage x\n"))), "Package x is x.") {
		t.Error("the error does not show what is there instead")
	}
}
