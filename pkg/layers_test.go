// Package pkg_test checks the repository's structure: the imports of each layer, the packages that a program may link, and
// the lengths of files and functions.
package pkg_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport is the import rule: the layers that a package of each layer may import, besides packages of other modules. A
// package's layer is the second element of its path: pkg/adapter/kafka is an adapter. Test files are exempt.
//
//	cmd -> adapter -> domain -> foundation
//
// An adapter does not import another adapter: two adapters meet in cmd, or through an interface of the domain. The platform
// (configuration, telemetry, program set-up) serves programs and tests only.
var mayImport = map[string][]string{
	"foundation": {"foundation"},
	"domain":     {"foundation", "domain"},
	"adapter":    {"foundation", "domain"},
	"platform":   {"foundation", "domain", "adapter", "platform"},
	"cmd":        {"foundation", "domain", "adapter", "platform"},
	"test":       {"foundation", "domain", "adapter", "platform", "test"},
}

// domainModules are the modules of others that the domain may import. They do no I/O, except for logs and metrics.
var domainModules = []string{
	"github.com/google/uuid", "github.com/prometheus/client_golang", "github.com/shopspring/decimal", "go.uber.org/zap",
	"golang.org/x/sync", "golang.org/x/text", "golang.org/x/time",
}

func TestLayers(t *testing.T) {
	t.Parallel()
	packages := goList(t, "./cmd/...", "./pkg/...", "./migrations/...")
	if len(packages) < 30 {
		t.Fatalf("go list returns %d packages: want at least 30", len(packages))
	}
	for _, p := range packages {
		if len(p.GoFiles)+len(p.CgoFiles) == 0 {
			continue // it has only tests
		}
		for _, problem := range checkLayer(p.ImportPath, p.Imports) {
			t.Error(problem)
		}
	}
}

// checkLayer returns the problems of a package's path and of its imports.
func checkLayer(path string, imports []string) []string {
	layer, ok := layerOf(path)
	if !ok {
		return []string{path + " has no layer: packages are in pkg/{foundation,domain,adapter,platform,test}/<name>, " +
			"cmd/<name> or migrations"}
	}
	var problems []string
	for _, imported := range imports {
		if problem := checkImport(path, layer, imported); problem != "" {
			problems = append(problems, problem)
		}
	}
	return problems
}

func checkImport(path, layer, imported string) string {
	if !strings.HasPrefix(imported, module) {
		first, _, _ := strings.Cut(imported, "/")
		allowed := layer != "domain" || !strings.Contains(first, ".") || slices.ContainsFunc(domainModules, func(m string) bool {
			return imported == m || strings.HasPrefix(imported, m+"/")
		})
		if !allowed {
			return path + " (domain) may not import " + imported + ": the domain uses only the modules in domainModules"
		}
		return ""
	}
	if imported == module+"migrations" {
		if path == module+"pkg/adapter/postgres" {
			return ""
		}
		return path + " may not import migrations: only pkg/adapter/postgres does"
	}
	if layer == "adapter" && imported != path {
		if other, _ := layerOf(imported); other == "adapter" {
			return path + " (adapter) may not import the adapter " + imported +
				": they meet in cmd, or through an interface of the domain"
		}
	}
	to, _ := layerOf(imported)
	if !slices.Contains(mayImport[layer], to) {
		return path + " (" + layer + ") may not import " + imported + " (" + to + "): " + layer + " imports only " +
			strings.Join(mayImport[layer], ", ")
	}
	return ""
}

// layerOf returns a package's layer, which its path determines. It returns false for a path where no package is allowed.
func layerOf(path string) (layer string, ok bool) {
	parts := strings.Split(strings.TrimPrefix(path, module), "/")
	switch {
	case len(parts) == 2 && parts[0] == "cmd":
		return "cmd", true
	case len(parts) == 3 && parts[0] == "pkg" && parts[1] != "cmd" && mayImport[parts[1]] != nil:
		return parts[1], true
	case len(parts) == 1 && parts[0] == "migrations":
		return "migrations", true
	default:
		return filepath.Dir(strings.TrimPrefix(path, module)), false
	}
}

func TestCheckLayer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path, imported string
		want                 int
	}{
		{"foundation imports foundation", "pkg/foundation/event", module + "pkg/foundation/fault", 0},
		{"foundation imports domain", "pkg/foundation/event", module + "pkg/domain/catalog", 1},
		{"domain imports domain", "pkg/domain/worker", module + "pkg/domain/catalog", 0},
		{"domain imports adapter", "pkg/domain/worker", module + "pkg/adapter/kafka", 1},
		{"domain imports platform", "pkg/domain/worker", module + "pkg/platform/config", 1},
		{"domain imports zap", "pkg/domain/worker", "go.uber.org/zap", 0},
		{"domain imports pgx", "pkg/domain/worker", "github.com/jackc/pgx/v5", 1},
		{"domain imports net/http", "pkg/domain/worker", "net/http", 0},
		{"adapter imports domain", "pkg/adapter/kafka", module + "pkg/domain/catalog", 0},
		{"adapter imports adapter", "pkg/adapter/kafka", module + "pkg/adapter/postgres", 1},
		{"adapter imports platform", "pkg/adapter/kafka", module + "pkg/platform/config", 1},
		{"adapter imports a client", "pkg/adapter/kafka", "github.com/IBM/sarama", 0},
		{"platform imports adapter", "pkg/platform/devstack", module + "pkg/adapter/kafka", 0},
		{"platform imports test", "pkg/platform/devstack", module + "pkg/test/servers", 1},
		{"program imports platform", "cmd/api", module + "pkg/platform/config", 0},
		{"program imports test", "cmd/api", module + "pkg/test/servers", 1},
		{"program imports program", "cmd/api", module + "cmd/worker", 1},
		{"test imports adapter", "pkg/test/chaos", module + "pkg/adapter/kafka", 0},
		{"test imports program", "pkg/test/chaos", module + "cmd/api", 1},
		{"postgres imports migrations", "pkg/adapter/postgres", module + "migrations", 0},
		{"program imports migrations", "cmd/vitrine", module + "migrations", 1},
		{"package without a layer", "pkg/kafka", "fmt", 1},
		{"package nested too deep", "pkg/adapter/kafka/deep", "fmt", 1},
		{"unknown layer", "pkg/other/kafka", "fmt", 1},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			if got := checkLayer(module+c.path, []string{c.imported}); len(got) != c.want {
				t.Errorf("%s -> %s: %q, want %d problems", c.path, c.imported, got, c.want)
			}
		})
	}
}
