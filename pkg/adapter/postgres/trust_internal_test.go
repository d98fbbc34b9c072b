package postgres

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// secondAuthority vouches for nothing.
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

func TestAnAuthorityThatIsReplacedIsTrustedByTheNextConnection(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ca.crt")
	write := func(content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	web := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(web.Close)
	first := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	second := slices.Concat(first, []byte(secondAuthority))

	cfg := Config{DSN: "postgres://db/vitrine?sslmode=verify-full&sslrootcert=" + file}
	write(first)
	conn, err := cfg.login()
	if err != nil {
		t.Fatal(err)
	}
	before := conn.TLSConfig.RootCAs
	renew := reloadRoots(cfg)

	write(nil) // half replaced
	if err := renew(t.Context(), conn); err != nil || !conn.TLSConfig.RootCAs.Equal(before) {
		t.Errorf("an empty file: got %v and other authorities, want those from before", err)
	}
	write(second)
	if err := renew(t.Context(), conn); err != nil || conn.TLSConfig.RootCAs.Equal(before) {
		t.Errorf("a new file: got %v and the authorities from before, want the new ones", err)
	}
	if got := conn.TLSConfig.ServerName; got != "db" {
		t.Errorf("got server name %q, want db", got)
	}
}
