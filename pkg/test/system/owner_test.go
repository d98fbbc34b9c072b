package system_test

import (
	"testing"

	"vitrine.io/pkg/test/servers"
)

func TestSetupBucketOwner(t *testing.T) {
	t.Parallel()
	env := emptyEnv(t)
	for range 2 { // safe to repeat
		if log, err := runCommand(t, env, nil, "setup"); err != nil || !hasLine(log, `"ready"`, `"owner"`) {
			t.Fatalf("got %v\n%s", err, log)
		}
	}
	log, err := runCommand(t, env, map[string]string{"VITRINE_POSTGRES_DSN": servers.Postgres(t)}, "setup")
	if err == nil || !hasLine(log, `"ended"`, "bucket_of_another", ".vitrine/installation") {
		t.Errorf("got %v, want an error that names the owner of the bucket\n%s", err, log)
	}
	if log, err := runCommand(t, env, nil, "setup"); err != nil {
		t.Errorf("setup by the owner fails: %v\n%s", err, log)
	}
}
