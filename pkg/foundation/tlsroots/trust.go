package tlsroots

import (
	"crypto/x509"
	"fmt"
	"os"
)

// Pool returns the authorities in a PEM file, or nil, which crypto/tls takes for the system's, when file is empty. A file
// that can't be read or has no certificate is an error that names it.
func Pool(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // as crypto/tls has it
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err //nolint:wrapcheck // "open FILE: why" says it all
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return pool, nil
}
