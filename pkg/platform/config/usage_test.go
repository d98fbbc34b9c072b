package config_test

import (
	"maps"
	"strings"
	"testing"

	"vitrine.io/pkg/platform/config"
)

func program() config.Program {
	return config.Program{Name: "vitrine-test", About: "shows things.", Version: "v1.2.3"}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	t.Run("arguments", testHelpArguments)
}

func testHelpArguments(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]string{
		"--help": config.Usage[testConfig](program()), "-h": config.Usage[testConfig](program()),
		"--help-markdown": config.Markdown[testConfig](), "--help-env": config.EnvExample[testConfig](program()),
		"--version": "vitrine-test v1.2.3\n",
	} {
		if got, ok := config.Help[testConfig](program(), []string{"--config", "x", arg}); !ok || got != want {
			t.Errorf("%s: got %v and %q, want %q", arg, ok, got, want)
		}
	}
	if got, ok := config.Help[testConfig](program(), []string{"--config", "x"}); ok || got != "" {
		t.Errorf("without a help argument: got %q", got)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	t.Run("every_variable", testUsageEveryVariable)
}

func testUsageEveryVariable(t *testing.T) {
	t.Parallel()
	got := config.Usage[testConfig](program())
	for _, want := range []string{
		"vitrine-test: shows things.",
		"VITRINE_HTTP_ADDR (text, default \":8080\")\n      address to listen on\n",
		"VITRINE_HTTP_READ_TIMEOUT (duration, default 5s)\n",
		"VITRINE_HTTP_ORIGINS (list, default https://a.example, https://b.example)\n",
		"VITRINE_STORE_DSN (text, required, secret, or VITRINE_STORE_DSN_FILE)\n",
		"VITRINE_MAX_BYTES (whole number)\n",
		"VITRINE_CONFIG names (http.addr is VITRINE_HTTP_ADDR)",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	t.Run("row_per_variable", testMarkdownRowPerVariable)
}

func testMarkdownRowPerVariable(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSpace(config.Markdown[testConfig]()), "\n")
	if got, want := len(lines), 2+len(config.Effective(testConfig{})); got != want {
		t.Errorf("got %d lines, want %d", got, want)
	}
	for i, want := range map[int]string{
		2: "| `VITRINE_HTTP_ADDR` | `http.addr` | text | `:8080` | address to listen on |",
		6: "| `VITRINE_STORE_DSN` | `store.dsn` | text | required | connection string (secret; or `VITRINE_STORE_DSN_FILE`) |",
		9: "| `VITRINE_RATE` | `rate` | number | `0.5` | share of \\| things |",
	} {
		if lines[i] != want {
			t.Errorf("line %d: got %s, want %s", i, lines[i], want)
		}
	}
}

func TestEnvExample(t *testing.T) {
	t.Parallel()
	t.Run("equals_defaults", testEnvExampleEqualsDefaults)
}

func testEnvExampleEqualsDefaults(t *testing.T) {
	t.Parallel()
	text := config.EnvExample[testConfig](program())
	var environ []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(strings.TrimPrefix(line, "#"), "\n")
		if strings.HasPrefix(line, config.Prefix) {
			environ = append(environ, line)
		}
	}
	if !strings.Contains(text, "\nVITRINE_STORE_DSN=\n") {
		t.Errorf("a required variable is not empty:\n%s", text)
	}
	written, _, err := config.Load[testConfig](nil, append(environ, dsn))
	if err != nil {
		t.Fatal(err)
	}
	defaults, _, err := config.Load[testConfig](nil, []string{dsn})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := config.Effective(written), config.Effective(defaults); !maps.Equal(got, want) || len(environ) != len(want) {
		t.Errorf("got %v from %d lines, want %v", got, len(environ), want)
	}
}
