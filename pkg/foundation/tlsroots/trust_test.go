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

// written returns a file with that text.
func written(t *testing.T, text []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAnAuthorityIsReadFromItsFile(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(nil) // for its certificate
	server.Close()
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	got, err := tlsroots.Pool(written(t, pem.EncodeToMemory(block)))
	if err != nil {
		t.Fatal(err)
	}
	want := x509.NewCertPool()
	want.AddCert(server.Certificate())
	if !got.Equal(want) {
		t.Error("got other authorities than the one in the file")
	}
}

func TestNoFileMeansTheSystemsAuthorities(t *testing.T) {
	t.Parallel()
	if pool, err := tlsroots.Pool(""); pool != nil || err != nil {
		t.Errorf("got %v and %v, want neither", pool, err)
	}
}

func TestAFileWithoutAnAuthorityIsNamed(t *testing.T) {
	t.Parallel()
	garbage := written(t, []byte("no PEM"))
	for file, want := range map[string]string{
		"/nowhere/ca.crt": "open /nowhere/ca.crt", garbage: "no certificate in " + garbage,
	} {
		if pool, err := tlsroots.Pool(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v and %v, want %q", pool, err, want)
		}
	}
}
