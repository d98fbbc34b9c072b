package system_test

import (
	"testing"

	"vitrine.io/pkg/test/servers"
)

func TestSetupRefusesTheBucketOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	env := bare(t)
	for range 2 { // safe to repeat
		if log, err := told(t, env, nil, "setup"); err != nil || !has(log, `"ready"`, `"owner"`) {
			t.Fatalf("got %v\n%s", err, log)
		}
	}
	log, err := told(t, env, map[string]string{"VITRINE_POSTGRES_DSN": servers.Postgres(t)}, "setup")
	if err == nil || !has(log, `"ended"`, "bucket_of_another", ".vitrine/installation") {
		t.Errorf("got %v, want a refusal that says whose bucket it is\n%s", err, log)
	}
	if log, err := told(t, env, nil, "setup"); err != nil {
		t.Errorf("the owner is refused: %v\n%s", err, log)
	}
}
