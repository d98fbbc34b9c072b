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

func TestCAFile(t *testing.T) {
	t.Parallel()
	t.Run("ca_of_the_store_is_trusted", testCAFileCaOfTheStoreIsTrusted)
	t.Run("unreadable_file_is_named", testCAFileUnreadableFileIsNamed)
}

func testCAFileCaOfTheStoreIsTrusted(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	caFile := filepath.Join(t.TempDir(), "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(caFile, text, 0o600); err != nil {
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
	cfg := settings(server.URL, "images")
	cfg.MaxAttempts = 1
	if err := ping(cfg); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with the system's roots: got %v, want unavailable for its certificate", err)
	}
	cfg.CAFile = caFile
	if err := ping(cfg); err != nil {
		t.Errorf("with its CA: %v", err)
	}
}

func testCAFileUnreadableFileIsNamed(t *testing.T) {
	t.Parallel()
	cfg := settings("https://minio:9000", "images")
	cfg.CAFile = "/nowhere/ca.crt"
	wrong := cfg.Validate()
	if len(wrong) != 1 || wrong[0].Path != "CA_FILE" || !strings.Contains(wrong[0].Detail, cfg.CAFile) {
		t.Errorf("got %+v, want CA_FILE with the name of the file", wrong)
	}
	_, err := blob.New(cfg, prometheus.NewRegistry(), zap.NewNop())
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("New: got %v, want fs.ErrNotExist", err)
	}
}
