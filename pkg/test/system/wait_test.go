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

// bare is the environment of a system in which nobody has set anything up.
func bare(t *testing.T) map[string]string {
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

// command is a command of vitrine's in an environment with changes ("" takes a variable out).
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

// jsonLines is what a command has logged so far. Every line has to be JSON.
func jsonLines(t *testing.T, out *servers.Output) []string {
	t.Helper()
	lines := slices.Collect(strings.Lines(out.String()))
	for _, line := range lines {
		if !json.Valid([]byte(line)) && strings.HasSuffix(line, "\n") { // the last one may still be on its way
			t.Errorf("not JSON: %s", line)
		}
	}
	return lines
}

// told runs a command to its end and returns its log.
func told(t *testing.T, env, change map[string]string, args ...string) ([]string, error) {
	t.Helper()
	cmd, out := command(t, env, change, args...)
	err := cmd.Run()
	return jsonLines(t, out), err
}

// waits runs a command until it says that it waits, in a line with all words, and then tells it to stop.
func waits(t *testing.T, env, change map[string]string, arg string, words ...string) {
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
			t.Fatalf("it ended: %v\n%s", err, out)
		default:
		}
		if !has(jsonLines(t, out), append(words, `"waiting"`)...) {
			return fmt.Errorf("no word of %q in\n%s", words, out)
		}
		return nil
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !has(jsonLines(t, out), `"ended"`) {
		t.Errorf("told to stop: got %v\n%s", err, out)
	}
}

// has reports whether a line of a log holds all words.
func has(lines []string, words ...string) bool {
	return slices.ContainsFunc(lines, func(line string) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
	})
}

func TestWaitReturnsWhenSetupIsDone(t *testing.T) {
	t.Parallel()
	env := bare(t)
	waited := make(chan []string, 1)
	go func() {
		lines, err := told(t, env, nil, "wait")
		if err != nil {
			t.Errorf("wait: %v\n%s", err, lines)
		}
		waited <- lines
	}()
	// Meanwhile others are seen to wait at each step, which shows that nobody who waits makes what is missing.
	waits(t, env, nil, "wait", `"database"`, "00001_")
	if lines, err := told(t, env, nil, "migrate", "up"); err != nil {
		t.Fatalf("migrate: %v\n%s", err, lines)
	}
	waits(t, env, nil, "wait", `"topics"`, "is missing or has no leader")
	waits(t, env, map[string]string{"VITRINE_S3_CREATE_BUCKET": ""}, "setup", `"bucket"`, "does not exist")
	waits(t, env, nil, "wait", `"bucket"`, "does not exist")
	if lines, err := told(t, env, nil, "setup"); err != nil {
		t.Fatalf("setup: %v\n%s", err, lines)
	}
	lines := <-waited
	for _, what := range []string{`"database"`, `"topics"`, `"bucket"`} {
		if !has(lines, `"ready"`, what) {
			t.Errorf("no word of %s:\n%s", what, lines)
		}
	}
	if has(lines, "migration applied") || has(lines, "bucket created") {
		t.Errorf("it has made something:\n%s", lines)
	}
	if lines, err := told(t, env, nil, "migrate", "down"); err != nil {
		t.Fatalf("migrate down: %v\n%s", err, lines)
	}
	waits(t, env, nil, "wait", `"database"`, ".sql")
}

func TestWaitWarnsOfTopicsThatCanLoseMessages(t *testing.T) {
	t.Parallel()
	env := bare(t)
	if lines, err := told(t, env, nil, "setup"); err != nil {
		t.Fatalf("setup: %v\n%s", err, lines)
	}
	lines, err := told(t, env, map[string]string{"VITRINE_KAFKA_REPLICATION": "3", "VITRINE_KAFKA_MIN_ISR": "2"}, "wait")
	if err != nil || !has(lines, `"warn"`, "topic can lose messages") {
		t.Errorf("got %v\n%s", err, lines)
	}
}

func TestWaitForTheDatabaseNeedsNoOtherServer(t *testing.T) {
	t.Parallel()
	env := bare(t)
	if lines, err := told(t, env, nil, "setup"); err != nil {
		t.Fatalf("setup: %v\n%s", err, lines)
	}
	away := map[string]string{
		"VITRINE_KAFKA_BROKERS": "127.0.0.1:1", "VITRINE_S3_ENDPOINT": "http://127.0.0.1:1", "VITRINE_SETUP_WAIT_FOR": "database",
	}
	if lines, err := told(t, env, away, "wait"); err != nil || has(lines, `"waiting"`) {
		t.Errorf("got %v\n%s", err, lines)
	}
	away["VITRINE_SETUP_WAIT_FOR"] = "databases"
	cmd, out := command(t, env, away, "wait")
	const detail = "VITRINE_SETUP_WAIT_FOR: must be database, topics or bucket"
	if err := cmd.Run(); err == nil || !strings.Contains(out.String(), detail) {
		t.Errorf("got %v\n%s", err, out.String())
	}
}

func TestWaitGivesUp(t *testing.T) {
	t.Parallel()
	lines, err := told(t, bare(t), map[string]string{
		"VITRINE_POSTGRES_DSN": "postgres://nobody@127.0.0.1:1/x", "VITRINE_SETUP_TIMEOUT": "1500ms",
	}, "wait")
	if err == nil || !has(lines, `"waiting"`, `"database"`) || !has(lines, `"ended"`, "database") {
		t.Errorf("got %v\n%s", err, lines)
	}
}
