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

// govips is the import path of the C bindings of libvips.
const govips = "github.com/davidbyttow/govips/v2"

// The budgets of files and functions, in lines.
const (
	maxFile     = 500
	maxTestFile = 800
	maxFunc     = 80
	maxTestFunc = 160 // a test is mostly rows of a table and subtests
	maxMain     = 120 // cmd/*/main.go
)

// checkDeps keeps libvips out of a program.
func checkDeps(program string, deps []string) []string {
	var wrong []string
	for _, dep := range deps {
		if dep == module+"pkg/imaging" || dep == govips || strings.HasPrefix(dep, govips+"/") {
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
