package pkg_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// module is the prefix of our own import paths.
const module = "vitrine.io/"

// The budgets of files and functions, in lines.
const (
	maxFile     = 500
	maxTestFile = 800
	maxFunc     = 80
	maxTestFunc = 160 // a test is mostly rows of a table and subtests
	maxMain     = 120 // cmd/*/main.go
)

// outsides gives the modules we use their short names, by the beginning of the import path. The longest match wins.
var outsides = map[string]string{
	"github.com/IBM/sarama":               "sarama",
	"github.com/alicebob/miniredis":       "miniredis",
	"github.com/aws/":                     "aws",
	"github.com/caarlos0/env":             "env",
	"github.com/davidbyttow/govips":       "govips",
	"github.com/fsnotify/fsnotify":        "fsnotify",
	"github.com/gofiber/fiber":            "fiber",
	"github.com/google/uuid":              "uuid",
	"github.com/jackc/pgx":                "pgx",
	"github.com/johannesboyne/gofakes3":   "gofakes3",
	"github.com/pressly/goose":            "goose",
	"github.com/prometheus/client_golang": "prometheus",
	"github.com/prometheus/client_model":  "client_model",
	"github.com/redis/go-redis":           "redis",
	"github.com/shopspring/decimal":       "decimal",
	"github.com/sony/gobreaker":           "gobreaker",
	"github.com/spf13/afero":              "afero",
	"github.com/spf13/cobra":              "cobra",
	"github.com/twmb/franz-go":            "kgo",
	"github.com/twmb/franz-go/pkg/kfake":  "kfake",
	"github.com/twmb/franz-go/pkg/kmsg":   "kmsg",
	"github.com/valyala/fasthttp":         "fasthttp",
	"github.com/xdg-go/scram":             "scram",
	"go.yaml.in/yaml":                     "yaml", // what sigs.k8s.io/yaml is made of
	"go.uber.org/goleak":                  "goleak",
	"go.uber.org/zap":                     "zap",
	"golang.org/x/image":                  "x/image",
	"golang.org/x/net":                    "x/net",
	"golang.org/x/sync":                   "x/sync",
	"golang.org/x/sys":                    "x/sys",
	"gorm.io/":                            "gorm",
	"pgregory.net/rapid":                  "rapid",
	"sigs.k8s.io/yaml":                    "yaml",
}

// mayEnter says which kinds of rooms a kind may import. A suite may also import the room it is the suite of.
var mayEnter = map[string][]string{
	"leaf":  {"leaf"},
	"core":  {"core", "leaf"},
	"edge":  {"core", "leaf"},
	"suite": {"core", "leaf"},
	"tool":  {"core", "leaf", "edge", "tool"},
	"cmd":   {"core", "leaf", "edge", "tool"},
}

// coreMayUse is all that core imports from outside: what has no side effects, or is how we log, count and limit.
var coreMayUse = []string{"decimal", "gobreaker", "prometheus", "uuid", "x/sync", "zap"}

// room is a package as the rules see it.
type room struct {
	path    string   // import path without the module: pkg/kafka/kafkatest
	plate   string   // its door plate, the last line of doc.go's package comment
	imports []string // import paths of its non-test files
}

// name is how plates call it.
func (r room) name() string { return strings.TrimPrefix(r.path, "pkg/") }

// kind is what its plate says it is. Programs have no plate.
func (r room) kind() string {
	if strings.HasPrefix(r.path, "cmd/") {
		return "cmd"
	}
	kind, _, _ := strings.Cut(strings.TrimPrefix(r.plate, "Room: "), ".")
	return kind
}

// doors are the rooms it imports, sorted.
func (r room) doors() []string {
	doors := map[string]bool{}
	for _, imported := range r.imports {
		if ours, ok := strings.CutPrefix(imported, module); ok {
			doors[strings.TrimPrefix(ours, "pkg/")] = true
		}
	}
	return slices.Sorted(maps.Keys(doors))
}

// outside are the short names of the modules it imports, sorted, and the import paths that have none.
func (r room) outside() (names, unknown []string) {
	found := map[string]bool{}
	for _, imported := range r.imports {
		first, _, _ := strings.Cut(imported, "/")
		if !strings.Contains(first, ".") || strings.HasPrefix(imported, module) {
			continue // the standard library, or ours
		}
		if name := outsideName(imported); name != "" {
			found[name] = true
		} else {
			unknown = append(unknown, imported)
		}
	}
	return slices.Sorted(maps.Keys(found)), unknown
}

func outsideName(imported string) string {
	longest := ""
	for prefix := range outsides {
		whole := strings.HasSuffix(prefix, "/") || imported == prefix || strings.HasPrefix(imported, prefix+"/")
		if whole && strings.HasPrefix(imported, prefix) && len(prefix) > len(longest) {
			longest = prefix
		}
	}
	return outsides[longest]
}

// checkPlate compares what the plate says with what the room imports, both ways: the plate is written as it must be.
func checkPlate(r room) []string {
	names, unknown := r.outside()
	var wrong []string
	for _, imported := range unknown {
		wrong = append(wrong, fmt.Sprintf("%s imports %s, which has no short name in arch_rules_test.go", r.path, imported))
	}
	want := fmt.Sprintf("Room: %s. Doors: %s. Outside: %s.", r.kind(), orNone(r.doors()), orNone(names))
	if r.plate != want {
		wrong = append(wrong, fmt.Sprintf("%s: the plate says\n\t\t%s\n\tbut the imports are\n\t\t%s", r.path, r.plate, want))
	}
	if _, ok := mayEnter[r.kind()]; !ok || r.kind() == "cmd" {
		wrong = append(wrong, fmt.Sprintf("%s: %q is no kind of room", r.path, r.kind()))
	}
	return wrong
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}

// checkDirection holds a room to whom it may import.
func checkDirection(r room, kinds map[string]string) []string {
	var wrong []string
	for _, door := range r.doors() {
		kind := kinds[door]
		isParent := r.kind() == "suite" && door == path.Dir(r.name())
		if !isParent && !slices.Contains(mayEnter[r.kind()], kind) {
			wrong = append(wrong, fmt.Sprintf("%s (%s) may not import %s (%s)", r.path, r.kind(), door, kind))
		}
		if door == "testenv" && !strings.HasPrefix(r.name(), "testenv/") && r.kind() != "tool" {
			wrong = append(wrong, fmt.Sprintf("%s imports testenv outside of a test", r.path))
		}
	}
	names, _ := r.outside()
	for _, name := range names {
		if r.kind() == "core" && !slices.Contains(coreMayUse, name) {
			wrong = append(wrong, fmt.Sprintf("%s is core and may not use %s", r.path, name))
		}
	}
	return wrong
}

// checkDeps keeps libvips out of a program.
func checkDeps(program string, deps []string) []string {
	var wrong []string
	for _, dep := range deps {
		if dep == module+"pkg/imaging" || outsideName(dep) == "govips" {
			wrong = append(wrong, fmt.Sprintf("%s depends on %s", program, dep))
		}
	}
	return wrong
}

// generated marks a file that no budget applies to, as the go command has it.
var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// checkBudgets holds a file to its budgets. name is its path in the repository.
func checkBudgets(name string, source []byte) []string {
	if generated.Match(source) {
		return nil
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, source, parser.SkipObjectResolution)
	if err != nil {
		return []string{err.Error()}
	}
	budget, funcBudget := maxFile, maxFunc
	switch {
	case strings.HasSuffix(name, "_test.go"):
		budget, funcBudget = maxTestFile, maxTestFunc
	case strings.HasPrefix(name, "cmd/") && path.Base(name) == "main.go":
		budget = maxMain
	}
	var wrong []string
	if lines := fset.File(file.Pos()).LineCount(); lines > budget {
		wrong = append(wrong, fmt.Sprintf("%s has %d lines, more than %d", name, lines, budget))
	}
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		first, last := fset.Position(fn.Pos()).Line, fset.Position(fn.End()).Line
		if lines := last - first + 1; lines > funcBudget {
			wrong = append(wrong, fmt.Sprintf("%s:%d: %s has %d lines, more than %d", name, first, fn.Name, lines, funcBudget))
		}
	}
	return wrong
}

// plateOf returns the door plate in the text of a doc.go: the last line of its package comment.
func plateOf(source []byte) (string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", source, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(file.Doc.Text()), "\n")
	plate := lines[len(lines)-1]
	if !strings.HasPrefix(plate, "Room: ") {
		return "", fmt.Errorf("its package comment ends with %q, not with a door plate", plate)
	}
	return plate, nil
}
