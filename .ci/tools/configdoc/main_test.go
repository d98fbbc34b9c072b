package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	head     = "| variable | key in the file | type | default | meaning |\n|---|---|---|---|---|\n"
	apiTable = head +
		"| `VITRINE_LOG_LEVEL` | `log.level` | text | `info` | least level |\n" +
		"| `VITRINE_HTTP_ADDR` | `http.addr` | text | `:8080` | address \\| port |\n" +
		"| `VITRINE_STORE_DSN` | `store.dsn` | text | required | where (secret; or `VITRINE_STORE_DSN_FILE`) |\n"
	workerTable = head +
		"| `VITRINE_LOG_LEVEL` | `log.level` | text | `info` | least level |\n" +
		"| `VITRINE_LOG_LATER` | `log.later` | text |  | told by the second |\n" +
		"| `VITRINE_STORE_DSN` | `store.dsn` | text | required | where (secret; or `VITRINE_STORE_DSN_FILE`) |\n"
)

// generate runs the program on tables, by program, and returns what it wrote.
func generate(t *testing.T, order []string, tables map[string]string) (page, example string, err error) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"-page", filepath.Join(dir, "page"), "-example", filepath.Join(dir, "example")}
	for _, name := range order {
		file := filepath.Join(dir, name+".md")
		if err := os.WriteFile(file, []byte(tables[name]), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	if err := run(args, io.Discard); err != nil {
		return "", "", err
	}
	return read(t, filepath.Join(dir, "page")), read(t, filepath.Join(dir, "example")), nil
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReference(t *testing.T) {
	t.Parallel()
	t.Run("each_variable_is_listed_once", testReferenceEachVariableIsListedOnce)
	t.Run("contradictory_tables", testReferenceContradictoryTables)
	t.Run("file_errors", testReferenceFileErrors)
}

func testReferenceEachVariableIsListedOnce(t *testing.T) {
	t.Parallel()
	page, example, err := generate(t, []string{"api", "worker"}, map[string]string{"api": apiTable, "worker": workerTable})
	if err != nil {
		t.Fatal(err)
	}
	want := "| variable | read by | type | default | meaning |\n|---|---|---|---|---|\n" +
		"| `VITRINE_LOG_LEVEL` | api, worker | text | `info` | least level |\n" +
		"| `VITRINE_LOG_LATER` | worker | text |  | told by the second |\n" +
		"| `VITRINE_HTTP_ADDR` | api | text | `:8080` | address \\| port |\n" +
		"| `VITRINE_STORE_DSN` | api, worker | text | required | where (secret; or `VITRINE_STORE_DSN_FILE`) |\n"
	if !strings.HasSuffix(page, want) {
		t.Errorf("the page ends\n%s\nand should end\n%s", page[max(0, len(page)-len(want)):], want)
	}
	if !strings.Contains(page, "# Configuration\n") {
		t.Error("the page has no introduction")
	}
	want = `
# ---- log ----

# least level
#VITRINE_LOG_LEVEL=info

# worker: told by the second
#VITRINE_LOG_LATER=

# ---- http ----

# api: address | port
#VITRINE_HTTP_ADDR=:8080

# ---- store ----

# where (secret; or VITRINE_STORE_DSN_FILE)
VITRINE_STORE_DSN=
`
	if !strings.HasSuffix(example, want) {
		t.Errorf("the example is\n%s\nand should end\n%s", example, want)
	}
}

func testReferenceContradictoryTables(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ api, worker, want string }{
		"another default": {apiTable, strings.Replace(workerTable, "`info`", "`warn`", 1), "worker: VITRINE_LOG_LEVEL differs from that of api"},
		"another meaning": {apiTable, strings.Replace(workerTable, "least", "most", 1), "VITRINE_LOG_LEVEL differs"},
		"another type":    {apiTable, strings.Replace(workerTable, "| text | `info`", "| list | `info`", 1), "VITRINE_LOG_LEVEL differs"},
		"another key":     {apiTable, strings.Replace(workerTable, "log.later", "late", 1), `key "late" does not follow from VITRINE_LOG_LATER`},
		"a cell too few":  {strings.Replace(apiTable, " text |", "", 1), workerTable, "4 cells"},
		"no rows":         {apiTable, "vitrine-worker v1\n", "worker: it has no rows"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := generate(t, []string{"api", "worker"}, map[string]string{"api": c.api, "worker": c.worker})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func testReferenceFileErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	table, nowhere := filepath.Join(dir, "api.md"), filepath.Join(dir, "none", "file")
	if err := os.WriteFile(table, []byte(apiTable), 0o600); err != nil {
		t.Fatal(err)
	}
	there := filepath.Join(dir, "there")
	for want, args := range map[string][]string{
		"read table":         {"-page", there, "-example", there, nowhere},
		"write page":         {"-page", nowhere, "-example", there, table},
		"write example":      {"-page", there, "-example", nowhere, table},
		"at least one table": {"-page", there, "-example", there},
		"-page":              {table},
		"not defined":        {"-what"},
	} {
		if err := run(args, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
}
