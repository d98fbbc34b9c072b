package postgres

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// secondAuthority is a certificate that no server uses.
const secondAuthority = `-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUI5Z1kc5V7+J+ZYByMSn0nSi1ReUwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGc2Vjb25kMCAXDTI2MTEyMjIwNDMxOFoYDzIxMjYxMDI5MjA0
MzE4WjARMQ8wDQYDVQQDDAZzZWNvbmQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAS6541g63XlLmJrO2NUcHTkqtpjBNnvCrAGkFgTTOed/ESr0SGs3gO5HBMF+SGD
SJ7SdzJrVdCpNGc4ejE4/VElo1MwUTAdBgNVHQ4EFgQUtIyX2NsyqLAjPcAJwcFp
HDsM3mgwHwYDVR0jBBgwFoAUtIyX2NsyqLAjPcAJwcFpHDsM3mgwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiAfgRKu7vPSrumgwCltcxXgPKFETJYC
x6RJJiTmPWBNogIhAJ+qyR3DsEKJf2B4v8s5bu+soYy+oI0361CGczSWhmGr
-----END CERTIFICATE-----
`

// A new connection trusts authorities that were replaced since the pool was opened.
func TestReloadRoots(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ca.crt")
	write := func(content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(server.Close)
	first := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	second := slices.Concat(first, []byte(secondAuthority))

	cfg := Config{DSN: "postgres://db/vitrine?sslmode=verify-full&sslrootcert=" + file}
	write(first)
	conn, err := cfg.login()
	if err != nil {
		t.Fatal(err)
	}
	before := conn.TLSConfig.RootCAs
	reload := reloadRoots(cfg)

	write(nil) // being replaced
	if err := reload(t.Context(), conn); err != nil || !conn.TLSConfig.RootCAs.Equal(before) {
		t.Errorf("empty file: got %v and other authorities, want the previous ones", err)
	}
	write(second)
	if err := reload(t.Context(), conn); err != nil || conn.TLSConfig.RootCAs.Equal(before) {
		t.Errorf("new file: got %v and the previous authorities, want the new ones", err)
	}
	if got := conn.TLSConfig.ServerName; got != "db" {
		t.Errorf("got server name %q, want db", got)
	}
}

// The hosts of a DSN share the time limit, so that the last one is reached if the others do not answer.
func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]time.Duration{
		"postgres://one/db":                                    6 * time.Second,
		"postgres://one/db?sslmode=prefer":                     6 * time.Second,
		"postgres://one,two:5433,three/db?sslmode=require":     2 * time.Second,
		"host=one,two port=5432,5433 target_session_attrs=any": 3 * time.Second,
	} {
		conn, err := Config{DSN: dsn, ConnectTimeout: 6 * time.Second}.login()
		if err != nil || conn.ConnectTimeout != want || conn.ValidateConnect == nil {
			t.Errorf("%s: got %v and %v, want %s and a check for writes", dsn, conn, err, want)
		}
	}
}
