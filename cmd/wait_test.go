package cmd_test

import (
	"encoding/json"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vitrine.io/pkg/testenv"
)

// bare is the environment of a system in which nobody has set anything up.
func bare(t *testing.T) map[string]string {
	t.Helper()
	brokers, prefix := testenv.Kafka(t)
	b := testenv.S3(t)
	return map[string]string{
		"PATH": "/usr/bin:/bin", "GOCOVERDIR": coverDir(t), "VITRINE_SETUP_TIMEOUT": "60s",
		"VITRINE_POSTGRES_DSN":  testenv.Postgres(t),
		"VITRINE_KAFKA_BROKERS": strings.Join(brokers, ","), "VITRINE_KAFKA_TOPIC_PREFIX": prefix,
		"VITRINE_KAFKA_REPLICATION": "1", "VITRINE_KAFKA_MIN_ISR": "1", "VITRINE_KAFKA_PARTITIONS": "2",
		"VITRINE_S3_ENDPOINT": b.Endpoint, "VITRINE_S3_REGION": b.Region, "VITRINE_S3_BUCKET": b.Bucket,
		"VITRINE_S3_ACCESS_KEY": b.AccessKey, "VITRINE_S3_SECRET_KEY": b.SecretKey,
		"VITRINE_S3_CREATE_BUCKET": "true",
	}
}

// told runs a command of vitrine's in an environment with changes ("" takes a variable out), and returns its log.
func told(t *testing.T, env, change map[string]string, args ...string) (lines []string, err error) {
	t.Helper()
	all := maps.Clone(env)
	maps.Copy(all, change)
	cmd := exec.CommandContext(t.Context(), filepath.Join(binDir(t), "vitrine"), args...)
	for name, value := range all {
		if value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	out, err := cmd.CombinedOutput()
	lines = slices.Collect(strings.Lines(string(out)))
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("vitrine %v: not JSON: %s", args, line)
		}
	}
	return lines, err
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
	// Meanwhile others give up at each step, which shows that nobody who waits makes what is missing.
	missing := func(what string, words ...string) {
		t.Helper()
		lines, err := told(t, env, map[string]string{"VITRINE_SETUP_TIMEOUT": "2s"}, "wait")
		if err == nil || !has(lines, append(words, `"waiting"`)...) || !has(lines, `"ended"`) {
			t.Errorf("%s: got %v\n%s", what, err, lines)
		}
	}
	missing("an empty database", `"database"`, "00001_")
	if lines, err := told(t, env, nil, "migrate", "up"); err != nil {
		t.Fatalf("migrate: %v\n%s", err, lines)
	}
	missing("no topics", `"topics"`, "is missing or has no leader")
	shy := map[string]string{"VITRINE_S3_CREATE_BUCKET": "", "VITRINE_SETUP_TIMEOUT": "3s"}
	if lines, err := told(t, env, shy, "setup"); err == nil {
		t.Fatalf("setup made a bucket that it was not to make:\n%s", lines)
	}
	missing("no bucket", `"bucket"`, "does not exist")
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
	missing("an older schema", `"database"`, ".sql")
}

func TestWaitRefusesTopicsThatCanLoseMessages(t *testing.T) {
	t.Parallel()
	env := bare(t)
	if lines, err := told(t, env, nil, "setup"); err != nil {
		t.Fatalf("setup: %v\n%s", err, lines)
	}
	lines, err := told(t, env, map[string]string{"VITRINE_KAFKA_REPLICATION": "3", "VITRINE_KAFKA_MIN_ISR": "2"}, "wait")
	if err == nil || !has(lines, `"ended"`, "topic can lose messages") || has(lines, `"waiting"`) {
		t.Errorf("got %v\n%s", err, lines)
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
