package catalog_test

import (
	"testing"

	"vitrine.io/pkg/domain/catalog"
)

func TestHostKey(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://example.com/a.jpg":                   "example.com",
		"HTTPS://Images.CDN.Example.co.UK.:8443/a":    "example.co.uk",
		"https://shop.github.io/a.jpg":                "shop.github.io", // a private suffix: customers are apart
		"https://bucket.s3.amazonaws.com/a.jpg":       "bucket.s3.amazonaws.com",
		"https://co.uk/a.jpg":                         "co.uk",
		"http://localhost:80/a.jpg":                   "localhost",
		"http://192.0.2.1:8080/a.jpg":                 "192.0.2.1",
		"http://[2001:DB8::1]/a.jpg":                  "2001:db8::1",
		"https://user:secret@www.example.com/a?b#c":   "example.com",
		"https://www.xn--bcher-kva.example/a.jpg":     "xn--bcher-kva.example",
		"not a url\x7f":                               "",
		"/relative":                                   "",
		"https://deep.name.of.a.host.example.org/a.b": "example.org",
	} {
		if got := catalog.HostKey(url); got != want {
			t.Errorf("%q: got %q, want %q", url, got, want)
		}
	}
}
