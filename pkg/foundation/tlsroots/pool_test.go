package tlsroots_test

import (
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vitrine.io/pkg/foundation/tlsroots"
)

// writeFile returns the name of a new file with that text.
func writeFile(t *testing.T, text []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPool(t *testing.T) {
	t.Parallel()
	t.Run("authority_is_read_from_file", testPoolFile)
	t.Run("no_file_means_system_authorities", testPoolSystem)
	t.Run("error_names_file_without_authority", testPoolNoAuthority)
}

func testPoolFile(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(nil) // for its certificate
	server.Close()
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	got, err := tlsroots.Pool(writeFile(t, pem.EncodeToMemory(block)))
	if err != nil {
		t.Fatal(err)
	}
	want := x509.NewCertPool()
	want.AddCert(server.Certificate())
	if !got.Equal(want) {
		t.Error("got other authorities than the one in the file")
	}
}

func testPoolSystem(t *testing.T) {
	t.Parallel()
	if pool, err := tlsroots.Pool(""); pool != nil || err != nil {
		t.Errorf("got %v and %v, want neither", pool, err)
	}
}

func testPoolNoAuthority(t *testing.T) {
	t.Parallel()
	garbage := writeFile(t, []byte("no PEM"))
	for file, want := range map[string]string{
		"/nowhere/ca.crt": "open /nowhere/ca.crt", garbage: "no certificate in " + garbage,
	} {
		if pool, err := tlsroots.Pool(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v and %v, want %q", pool, err, want)
		}
	}
}
