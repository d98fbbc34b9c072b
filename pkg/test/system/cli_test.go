package system_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vitrine.io/pkg/test/servers"
)

// cli runs a program with the given environment until it exits, and returns its output.
func cli(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	return cliReading(t, "", env, name, args...)
}

// cliReading is cli with a text as the standard input.
func cliReading(t *testing.T, stdin string, env []string, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(binDir(t), name), args...)
	cmd.Env = append(env, "PATH=/usr/bin:/bin", "GOCOVERDIR="+coverDir(t))
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	t.Run("invalid_values", testConfigurationInvalidValues)
	t.Run("misspelled_variable", testConfigurationMisspelledVariable)
	t.Run("shutdown_grace_too_short", testConfigurationShutdownGraceTooShort)
	t.Run("missing_pipeline_file", testConfigurationMissingPipelineFile)
}

func testConfigurationInvalidValues(t *testing.T) {
	t.Parallel()
	env := []string{"VITRINE_LOG_LEVEL=loud", "VITRINE_KAFKA_PARTITIONS=many", "VITRINE_S3_BUCKET=a b"}
	for name, args := range map[string][]string{"api": nil, "worker": nil, "vitrine": {"setup"}} {
		out, err := cli(t, env, name, args...)
		if err == nil {
			t.Errorf("%s started:\n%s", name, out)
		}
		for _, want := range []string{
			"VITRINE_LOG_LEVEL", "VITRINE_KAFKA_PARTITIONS", "VITRINE_S3_BUCKET", "VITRINE_POSTGRES_DSN",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("the output of %s does not mention %s:\n%s", name, want, out)
			}
		}
	}
}

func testConfigurationMisspelledVariable(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"api": nil, "worker": nil, "vitrine": {"migrate", "status"}} {
		out, err := cli(t, []string{"VITRINE_POSTGRES_DNS=postgres://localhost/x"}, name, args...)
		if err == nil || !strings.Contains(out, "VITRINE_POSTGRES_DNS") {
			t.Errorf("%s: got %v\n%s", name, err, out)
		}
	}
}

func testConfigurationShutdownGraceTooShort(t *testing.T) {
	t.Parallel()
	for _, wrong := range [][]string{
		{"VITRINE_SHUTDOWN_GRACE=44s"},
		{"VITRINE_WORKER_OUTCOME_TIMEOUT=13s", "VITRINE_SHUTDOWN_GRACE=1h"},
		{"VITRINE_SHUTDOWN_GRACE=50s", "VITRINE_WORKER_OUTCOME_TIMEOUT=8s"}, // at least 30 s, twice 8 s, and 5 s
	} {
		out, err := cli(t, append([]string{
			"VITRINE_POSTGRES_DSN=postgres://localhost/x", "VITRINE_S3_ENDPOINT=http://localhost:1",
		}, wrong...), "worker")
		name, _, _ := strings.Cut(wrong[0], "=")
		if err == nil || !strings.Contains(out, name+": must be at ") {
			t.Errorf("%v: got %v\n%s", wrong, err, out)
		}
	}
}

func testConfigurationMissingPipelineFile(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"api", "worker"} {
		out, err := cli(t, []string{
			"VITRINE_POSTGRES_DSN=postgres://localhost/x", "VITRINE_PIPELINE_FILE=/nowhere",
			"VITRINE_S3_ENDPOINT=http://localhost:1",
		}, name)
		if err == nil || !strings.Contains(out, "VITRINE_PIPELINE_FILE") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		want string
		name string
		args []string
	}{
		{"VITRINE_HTTP_ADDR", "api", []string{"--help"}},
		{"VITRINE_CODEC_CHILDREN", "worker", []string{"--help"}},
		{"VITRINE_SETUP_TIMEOUT", "vitrine", []string{"setup", "--help"}},
		{"VITRINE_SETUP_TIMEOUT", "vitrine", []string{"wait", "--help"}},
		{"VITRINE_POSTGRES_DSN", "vitrine", []string{"migrate", "up", "--help"}},
		{"Run the whole system", "vitrine", []string{"--help"}},
		{"--samples", "vitrine", []string{"dev", "--help"}},
		{"vitrine version", "vitrine", []string{"--version"}},
	} {
		out, err := cli(t, nil, row.name, row.args...)
		if err != nil || !strings.Contains(out, row.want) {
			t.Errorf("%s %v: %v, want %q in\n%s", row.name, row.args, err, row.want, out)
		}
	}
	if out, err := cli(t, nil, "vitrine", "nonsense"); err == nil {
		t.Errorf("an unknown command is accepted:\n%s", out)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	env := []string{"VITRINE_POSTGRES_DSN=" + servers.Postgres(t), "VITRINE_LOG_LEVEL=warn"}
	status := func() (applied, missing int) {
		out, err := cli(t, env, "vitrine", "migrate", "status")
		if err != nil {
			t.Fatalf("status: %v\n%s", err, out)
		}
		lines := strings.Count(out, "\n")
		missing = strings.Count(out, "not yet")
		return lines - missing, missing
	}
	if applied, missing := status(); applied != 0 || missing == 0 {
		t.Errorf("an empty database: %d applied, %d missing", applied, missing)
	}
	for range 2 { // safe to repeat
		if out, err := cli(t, env, "vitrine", "migrate", "up"); err != nil {
			t.Fatalf("up: %v\n%s", err, out)
		}
	}
	applied, missing := status()
	if missing != 0 {
		t.Errorf("after up: %d missing", missing)
	}
	if out, err := cli(t, env, "vitrine", "migrate", "down"); err != nil {
		t.Fatalf("down: %v\n%s", err, out)
	}
	if now, missing := status(); now != applied-1 || missing != 1 {
		t.Errorf("after down: %d applied, %d missing, want %d and 1", now, missing, applied-1)
	}
}

func TestSetupTimeout(t *testing.T) {
	t.Parallel()
	out, err := cli(t, []string{
		"VITRINE_POSTGRES_DSN=postgres://absent@127.0.0.1:1/x", "VITRINE_SETUP_TIMEOUT=2s",
		"VITRINE_S3_ENDPOINT=http://127.0.0.1:1",
	}, "vitrine", "setup")
	if err == nil || !strings.Contains(out, "waiting") || !strings.Contains(out, "database") {
		t.Errorf("got %v:\n%s", err, out)
	}
}
