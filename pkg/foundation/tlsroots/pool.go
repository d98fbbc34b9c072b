package tlsroots

import (
	"crypto/x509"
	"fmt"
	"os"
)

// Pool returns the authorities in a PEM file. If file is empty, it returns nil, which crypto/tls takes for the authorities
// of the system. The error for a file that cannot be read or has no certificate contains its name.
func Pool(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // for crypto/tls, nil means those of the system
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return pool, nil
}
