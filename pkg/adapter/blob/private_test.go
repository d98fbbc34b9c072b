package blob_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/fault"
)

// checkPrivate checks a bucket of a store that answers requests without credentials with the statuses of the probe and of
// the owner mark.
func checkPrivate(t *testing.T, probe, mark int) error {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
		case strings.HasSuffix(r.URL.Path, maintenance.ProbeKey):
			w.WriteHeader(probe)
		default:
			w.WriteHeader(mark)
		}
	}))
	defer server.Close()
	b, err := blob.New(settings(server.URL, "originals"), prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	return b.CheckPrivate(t.Context())
}

func TestCheckPrivate(t *testing.T) {
	t.Parallel()
	t.Run("denied_requests_are_private", testCheckPrivateDenied)
	t.Run("returned_object_is_public", testCheckPrivatePublic)
	t.Run("other_status_says_nothing", testCheckPrivateNoAnswer)
}

func testCheckPrivateDenied(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		if err := checkPrivate(t, status, status); err != nil {
			t.Errorf("%d: got %v", status, err)
		}
	}
}

func testCheckPrivatePublic(t *testing.T) {
	t.Parallel()
	const public, denied = http.StatusOK, http.StatusForbidden
	for _, status := range [][2]int{{public, denied}, {denied, public}} {
		if err := checkPrivate(t, status[0], status[1]); !fault.Is(err, fault.Conflict) {
			t.Errorf("%v: got %v, want a conflict", status, err)
		}
	}
}

func testCheckPrivateNoAnswer(t *testing.T) {
	t.Parallel()
	for _, status := range []int{
		http.StatusNotModified, http.StatusBadRequest, http.StatusNotFound, http.StatusProxyAuthRequired,
		http.StatusTooManyRequests, http.StatusBadGateway,
	} {
		if err := checkPrivate(t, status, http.StatusForbidden); !fault.Is(err, fault.Unavailable) {
			t.Errorf("probe %d: got %v, want unavailable", status, err)
		}
		if err := checkPrivate(t, http.StatusForbidden, status); !fault.Is(err, fault.Unavailable) {
			t.Errorf("owner mark %d: got %v, want unavailable", status, err)
		}
	}
}
