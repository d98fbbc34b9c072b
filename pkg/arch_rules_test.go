package pkg_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"strings"
)

// module is the prefix of our own import paths.
const module = "vitrine.io/"

// The import paths of libvips' C bindings, and of the package that uses them.
var libvips = []string{"github.com/davidbyttow/govips/v2", module + "pkg/adapter/imaging"}

// forbidden are the packages that a program must not link, with those below them: only the codec links libvips, and the
// codec, which works in a sandbox on untrusted files, links nothing that only its parent needs.
var forbidden = map[string][]string{
	"api": libvips, "worker": libvips, "vitrine": libvips,
	"codec": {
		"go.uber.org/zap", "github.com/prometheus", "github.com/google/uuid", "golang.org/x/sync/singleflight",
		module + "pkg/adapter/codec",
	},
}

// The budgets of files and functions, in lines.
const (
	maxFile     = 500
	maxTestFile = 800
	maxFunc     = 80
	maxTestFunc = 160 // a test is mostly rows of a table and subtests
	maxMain     = 120 // cmd/*/main.go
)

// checkDeps reports the dependencies of a program that are forbidden packages or below one.
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
