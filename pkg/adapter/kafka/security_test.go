package kafka_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/fault"
)

// The login that a test's broker accepts.
const (
	user     = "vitrine"
	password = "correct horse"
)

func TestSASL(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			_, config := seeded(t, kfake.EnableSASL(), kfake.Superuser(mechanism, user, password))
			config.SASLMechanism, config.SASLUser, config.SASLPassword = mechanism, user, password
			roundTrip(t, config)
			config.SASLPassword = "wrong"
			admin, err := kafka.NewAdmin(config)
			if err != nil {
				t.Fatal(err)
			}
			if err := admin.Ping(t.Context()); !fault.Is(err, fault.Unavailable) {
				t.Errorf("ping with a wrong password: got %v, want unavailable", err)
			}
			p, _ := newPublisher(t, config)
			allUnavailable(t, p.Publish(t.Context(), messages(1)))
		})
	}
}

// roundTrip pings, publishes and consumes.
func roundTrip(t *testing.T, config kafka.Config) {
	t.Helper()
	admin, err := kafka.NewAdmin(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.Ping(t.Context()); err != nil {
		t.Fatalf("ping: %v", err)
	}
	send(t, config, messages(3))
	seen := newTally()
	r := run(t, config, requested("g"), seen.handle, nil)
	eventually(t, "the messages arrive", func() bool { return seen.size() == 3 })
	r.stop()
}

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, server := certificates(t, dir)
	clientCAs := x509.NewCertPool()
	clientCAs.AddCert(ca)
	_, config := seeded(t, kfake.TLS(&tls.Config{
		Certificates: []tls.Certificate{server}, ClientCAs: clientCAs, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: tls.VersionTLS12,
	}))
	config.TLSEnabled = true
	config.TLSCAFile = filepath.Join(dir, "ca.pem")
	config.TLSCertFile, config.TLSKeyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	roundTrip(t, config)
	for name, change := range map[string]func(*kafka.Config){
		"unknown_ca":            func(c *kafka.Config) { c.TLSCAFile = "" },
		"other_server_name":     func(c *kafka.Config) { c.TLSServerName = "elsewhere.example" },
		"no_client_certificate": func(c *kafka.Config) { c.TLSCertFile, c.TLSKeyFile = "", "" },
		"no_tls":                func(c *kafka.Config) { *c = local(c.Brokers, "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			invalid := config
			change(&invalid)
			p, _ := newPublisher(t, invalid)
			allUnavailable(t, p.Publish(t.Context(), messages(1)))
		})
	}
}

// certificates creates a CA, and one certificate for 127.0.0.1 for server and client. It writes ca.pem, cert.pem and
// key.pem to dir.
func certificates(t *testing.T, dir string) (ca *x509.Certificate, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(template, parent *x509.Certificate) []byte {
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	root := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER := sign(root, root)
	host := &x509.Certificate{
		Subject: pkix.Name{CommonName: "kafka"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ca, err = x509.ParseCertificate(rootDER); err != nil {
		t.Fatal(err)
	}
	hostDER := sign(host, ca)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"ca.pem":   {Type: "CERTIFICATE", Bytes: rootDER},
		"cert.pem": {Type: "CERTIFICATE", Bytes: hostDER},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return ca, tls.Certificate{Certificate: [][]byte{hostDER}, PrivateKey: key}
}
