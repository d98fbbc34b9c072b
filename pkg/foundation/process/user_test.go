package process_test

import (
	"strings"
	"testing"

	"vitrine.io/pkg/foundation/process"
)

func TestUnprivileged(t *testing.T) {
	t.Parallel()
	if cred, err := process.Unprivileged(1000, "nobody"); err != nil || cred != nil {
		t.Errorf("for an ordinary user: got %v, %v, want ourselves", cred, err)
	}
	if cred, err := process.Unprivileged(0, "no such user", "nobody"); err != nil || cred == nil || cred.Uid == 0 {
		t.Errorf("for root: got %v, %v, want somebody else", cred, err)
	}
	if _, err := process.Unprivileged(0, "no such user"); err == nil || !strings.Contains(err.Error(), "no such user") {
		t.Errorf("nobody to run as: got %v, want the names", err)
	}
}
