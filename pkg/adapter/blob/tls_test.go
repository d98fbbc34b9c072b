package blob_test

import (
	"encoding/pem"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/foundation/fault"
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
	cfg := settings("https://minio:9000", "pictures")
	cfg.CAFile = "/nowhere/ca.crt"
	wrong := cfg.Validate()
	if len(wrong) != 1 || wrong[0].Path != "CA_FILE" || !strings.Contains(wrong[0].Detail, cfg.CAFile) {
		t.Errorf("got %+v, want CA_FILE and the file", wrong)
	}
	_, err := blob.New(cfg, prometheus.NewRegistry(), zap.NewNop())
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened: got %v, want no such file", err)
	}
}
