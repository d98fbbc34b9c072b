package rediscache_test

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/rediscache"
)

// tlsRedis starts a Redis that accepts only TLS, with a self-signed certificate for 127.0.0.1, and returns its address and
// the file of the certificate.
func tlsRedis(t *testing.T) (addr, authority string) {
	t.Helper()
	server := httptest.NewTLSServer(nil) // for its certificate
	server.Close()
	mini, err := miniredis.RunTLS(&tls.Config{Certificates: server.TLS.Certificates, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mini.Close)
	authority = filepath.Join(t.TempDir(), "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(authority, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return mini.Addr(), authority
}

func TestTLS(t *testing.T) {
	t.Parallel()
	addr, authority := tlsRedis(t)
	cfg := settings([]string{addr}, "x:")
	cfg.TLS, cfg.TLSCAFile = true, authority
	if wrong := cfg.Validate(); wrong != nil {
		t.Fatal(wrong)
	}
	cache := open(t, cfg, "tag")
	if err := cache.Ping(t.Context()); err != nil {
		t.Fatalf("ping: %v", err)
	}
	mustFill(t, cache, 1, doc(1))
	wantHit(t, cache, 1, true)

	for name, edit := range map[string]func(*rediscache.Config){
		"the system's roots": func(c *rediscache.Config) { c.TLSCAFile = "" },
		"no TLS":             func(c *rediscache.Config) { c.TLS, c.TLSCAFile = false, "" },
	} {
		other := cfg
		edit(&other)
		wantUnavailable(t, open(t, other, "tag "+name))
	}
}

func testConfigUnreadableAuthority(t *testing.T) {
	t.Parallel()
	cfg := settings([]string{"here:1"}, "")
	cfg.TLS, cfg.TLSCAFile = true, "/nowhere/ca.crt"
	wrong := cfg.Validate()
	if len(wrong) != 1 || wrong[0].Path != "TLS_CA_FILE" || !strings.Contains(wrong[0].Detail, cfg.TLSCAFile) {
		t.Errorf("got %+v, want TLS_CA_FILE with the name of the file", wrong)
	}
	_, err := rediscache.New(cfg, "tag", time.Now, rand.Float64, prometheus.NewRegistry(), zap.NewNop())
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("new: got %v, want a missing file", err)
	}
}
