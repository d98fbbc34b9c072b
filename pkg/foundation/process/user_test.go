package process_test

import (
	"strings"
	"testing"

	"vitrine.io/pkg/foundation/process"
)

func TestUnprivileged(t *testing.T) {
	t.Parallel()
	if cred, err := process.Unprivileged(1000, "nobody"); err != nil || cred != nil {
		t.Errorf("for an ordinary user: got %v, %v, want nil", cred, err)
	}
	if cred, err := process.Unprivileged(0, "no such user", "nobody"); err != nil || cred == nil || cred.Uid == 0 {
		t.Errorf("for root: got %v, %v, want another user", cred, err)
	}
	if _, err := process.Unprivileged(0, "no such user"); err == nil || !strings.Contains(err.Error(), "no such user") {
		t.Errorf("no such user: got %v, want an error with the names", err)
	}
}
