package system_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"vitrine.io/pkg/test/servers"
)

// emptyEnv returns the environment of a system without tables, topics or bucket.
func emptyEnv(t *testing.T) map[string]string {
	t.Helper()
	brokers, prefix := servers.Kafka(t)
	b := servers.S3(t)
	return map[string]string{
		"PATH": "/usr/bin:/bin", "GOCOVERDIR": coverDir(t), "VITRINE_SETUP_TIMEOUT": "10m",
		"VITRINE_POSTGRES_DSN":  servers.Postgres(t),
		"VITRINE_KAFKA_BROKERS": strings.Join(brokers, ","), "VITRINE_KAFKA_TOPIC_PREFIX": prefix,
		"VITRINE_KAFKA_REPLICATION": "1", "VITRINE_KAFKA_MIN_ISR": "1", "VITRINE_KAFKA_PARTITIONS": "2",
		"VITRINE_S3_ENDPOINT": b.Endpoint, "VITRINE_S3_REGION": b.Region, "VITRINE_S3_BUCKET": b.Bucket,
		"VITRINE_S3_ACCESS_KEY": b.AccessKey, "VITRINE_S3_SECRET_KEY": b.SecretKey,
		"VITRINE_S3_CREATE_BUCKET": "true",
	}
}

// command returns a command of vitrine and its output. change overrides variables of env; "" removes one.
func command(t *testing.T, env, change map[string]string, args ...string) (*exec.Cmd, *servers.Output) {
	t.Helper()
	all := maps.Clone(env)
	maps.Copy(all, change)
	cmd, out := exec.CommandContext(t.Context(), filepath.Join(binDir(t), "vitrine"), args...), &servers.Output{}
	for name, value := range all {
		if value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

// jsonLines returns the log lines of a command so far, and checks that each is JSON.
func jsonLines(t *testing.T, out *servers.Output) []string {
	t.Helper()
	lines := slices.Collect(strings.Lines(out.String()))
	for _, line := range lines {
		if !json.Valid([]byte(line)) && strings.HasSuffix(line, "\n") { // the last line may be incomplete
			t.Errorf("not JSON: %s", line)
		}
	}
	return lines
}

// runCommand runs a command until it exits and returns its log.
func runCommand(t *testing.T, env, change map[string]string, args ...string) ([]string, error) {
	t.Helper()
	cmd, out := command(t, env, change, args...)
	err := cmd.Run()
	return jsonLines(t, out), err
}

// awaitWaiting runs a command until it logs that it is waiting, in a line with all words, and then stops it with SIGTERM.
func awaitWaiting(t *testing.T, env, change map[string]string, arg string, words ...string) {
	t.Helper()
	cmd, out := command(t, env, change, arg)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	eventually(t, "vitrine "+arg+" waits", func() error {
		select {
		case err := <-ended:
			t.Fatalf("it exited: %v\n%s", err, out)
		default:
		}
		if !hasLine(jsonLines(t, out), append(words, `"waiting"`)...) {
			return fmt.Errorf("no line with %q in\n%s", words, out)
		}
		return nil
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !hasLine(jsonLines(t, out), `"ended"`) {
		t.Errorf("after SIGTERM: got %v\n%s", err, out)
	}
}

// hasLine reports whether one of the lines contains all words.
func hasLine(lines []string, words ...string) bool {
	return slices.ContainsFunc(lines, func(line string) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
	})
}

func TestWait(t *testing.T) {
	t.Parallel()
	t.Run("until_setup_is_done", testWaitUntilSetupIsDone)
	t.Run("unsafe_topics", testWaitUnsafeTopics)
	t.Run("database_only", testWaitDatabaseOnly)
	t.Run("timeout", testWaitTimeout)
}

func testWaitUntilSetupIsDone(t *testing.T) {
	t.Parallel()
	env := emptyEnv(t)
	waited := make(chan []string, 1)
	go func() {
		lines, err := runCommand(t, env, nil, "wait")
		if err != nil {
			t.Errorf("wait: %v\n%s", err, lines)
		}
		waited <- lines
	}()
	// Other commands wait at each step in the meantime. This checks that wait creates nothing itself.
	awaitWaiting(t, env, nil, "wait", `"database"`, "00001_")
	if lines, err := runCommand(t, env, nil, "migrate", "up"); err != nil {
		t.Fatalf("migrate: %v\n%s", err, lines)
	}
	awaitWaiting(t, env, nil, "wait", `"topics"`, "is missing or has no leader")
	awaitWaiting(t, env, map[string]string{"VITRINE_S3_CREATE_BUCKET": ""}, "setup", `"bucket"`, "does not exist")
	awaitWaiting(t, env, nil, "wait", `"bucket"`, "does not exist")
	if lines, err := runCommand(t, env, nil, "setup"); err != nil {
		t.Fatalf("setup: %v\n%s", err, lines)
	}
	lines := <-waited
	for _, what := range []string{`"database"`, `"topics"`, `"bucket"`} {
		if !hasLine(lines, `"ready"`, what) {
			t.Errorf("no line for %s:\n%s", what, lines)
		}
	}
	if hasLine(lines, "migration applied") || hasLine(lines, "bucket created") {
		t.Errorf("wait has changed something:\n%s", lines)
	}
	if lines, err := runCommand(t, env, nil, "migrate", "down"); err != nil {
		t.Fatalf("migrate down: %v\n%s", err, lines)
	}
	awaitWaiting(t, env, nil, "wait", `"database"`, ".sql")
}

func testWaitUnsafeTopics(t *testing.T) {
	t.Parallel()
	env := emptyEnv(t)
	if lines, err := runCommand(t, env, nil, "setup"); err != nil {
		t.Fatalf("setup: %v\n%s", err, lines)
	}
	lines, err := runCommand(t, env, map[string]string{"VITRINE_KAFKA_REPLICATION": "3", "VITRINE_KAFKA_MIN_ISR": "2"}, "wait")
	if err != nil || !hasLine(lines, `"warn"`, "topic can lose messages") {
		t.Errorf("got %v\n%s", err, lines)
	}
}

func testWaitDatabaseOnly(t *testing.T) {
	t.Parallel()
	env := emptyEnv(t)
	if lines, err := runCommand(t, env, nil, "setup"); err != nil {
		t.Fatalf("setup: %v\n%s", err, lines)
	}
	away := map[string]string{
		"VITRINE_KAFKA_BROKERS": "127.0.0.1:1", "VITRINE_S3_ENDPOINT": "http://127.0.0.1:1", "VITRINE_SETUP_WAIT_FOR": "database",
	}
	if lines, err := runCommand(t, env, away, "wait"); err != nil || hasLine(lines, `"waiting"`) {
		t.Errorf("got %v\n%s", err, lines)
	}
	away["VITRINE_SETUP_WAIT_FOR"] = "databases"
	cmd, out := command(t, env, away, "wait")
	const detail = "VITRINE_SETUP_WAIT_FOR: must be database, topics or bucket"
	if err := cmd.Run(); err == nil || !strings.Contains(out.String(), detail) {
		t.Errorf("got %v\n%s", err, out.String())
	}
}

func testWaitTimeout(t *testing.T) {
	t.Parallel()
	lines, err := runCommand(t, emptyEnv(t), map[string]string{
		"VITRINE_POSTGRES_DSN": "postgres://absent@127.0.0.1:1/x", "VITRINE_SETUP_TIMEOUT": "1500ms",
	}, "wait")
	if err == nil || !hasLine(lines, `"waiting"`, `"database"`) || !hasLine(lines, `"ended"`, "database") {
		t.Errorf("got %v\n%s", err, lines)
	}
}
