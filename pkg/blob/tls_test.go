package blob_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/blob"
	"vitrine.io/pkg/fault"
)

func TestAStoreWithTLSIsTrustedByItsAuthority(t *testing.T) {
	t.Parallel()
	web := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(web.Close)
	authority := filepath.Join(t.TempDir(), "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(authority, text, 0o600); err != nil {
		t.Fatal(err)
	}
	ping := func(cfg blob.Config) error {
		t.Helper()
		if wrong := cfg.Validate(); wrong != nil {
			t.Fatal(wrong)
		}
		bucket, err := blob.New(cfg, prometheus.NewRegistry(), zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		defer bucket.Close()
		return bucket.Ping(t.Context())
	}
	cfg := settings(web.URL, "pictures")
	cfg.MaxAttempts = 1
	if err := ping(cfg); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("by the system's roots: got %v, want unavailable for its certificate", err)
	}
	cfg.CAFile = authority
	if err := ping(cfg); err != nil {
		t.Errorf("by its authority: %v", err)
	}
}

func TestAnAuthorityThatCannotBeReadIsNamed(t *testing.T) {
	t.Parallel()
	garbage := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(garbage, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"/nowhere/ca.crt": "open /nowhere/ca.crt", garbage: "no certificate in " + garbage,
	} {
		cfg := settings("https://minio:9000", "pictures")
		cfg.CAFile = file
		wrong := cfg.Validate()
		if len(wrong) != 1 || wrong[0].Pointer != "CA_FILE" || !strings.Contains(wrong[0].Detail, want) {
			t.Errorf("got %+v, want CA_FILE, with %q", wrong, want)
		}
		if _, err := blob.New(cfg, prometheus.NewRegistry(), zap.NewNop()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("opened: got %v, want %q", err, want)
		}
	}
}
