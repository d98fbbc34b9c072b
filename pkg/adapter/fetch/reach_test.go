package fetch_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestReach(t *testing.T) {
	t.Parallel()
	t.Run("result_by_host", testReachResultByHost)
	t.Run("tls_handshake_is_verified", testReachTLSHandshakeIsVerified)
	t.Run("ended_context", testReachEndedContext)
}

// pipeTo returns a connection whose other end is handled by serve.
func pipeTo(serve func(net.Conn)) func(string) (net.Conn, error) {
	return func(string) (net.Conn, error) {
		here, there := net.Pipe()
		go serve(there)
		return here, nil
	}
}

func testReachResultByHost(t *testing.T) {
	t.Parallel()
	responds := pipeTo(func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1000))
		_, _ = c.Write([]byte("H"))
		_ = c.Close()
	})
	for name, row := range map[string]struct {
		url   string
		addrs []string
		dial  func(string) (net.Conn, error)
		want  media.Code
	}{
		"responds":                   {"http://x.test", []string{publicV4}, responds, ""},
		"responds_to_unicode_name":   {"http://bücher.test", []string{publicV4}, responds, ""},
		"accepts_and_is_silent":      {"http://x.test", []string{publicV4}, pipeTo(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), media.Timeout},
		"accepts_and_closes":         {"http://x.test", []string{publicV4}, pipeTo(func(c net.Conn) { _ = c.Close() }), media.ConnectFailed},
		"refuses":                    {"http://x.test", []string{publicV4}, nil, media.ConnectFailed},
		"internal_address":           {"http://x.test", []string{"10.0.0.1"}, responds, media.URLForbidden},
		"port_not_allowed":           {"http://x.test:22", []string{publicV4}, responds, media.URLForbidden},
		"no_such_name":               {"http://absent.test", nil, responds, media.DNSFailed},
		"neither_http_nor_https":     {"ftp://x.test", nil, responds, media.URLForbidden},
		"url_that_cannot_be_decoded": {"http://%zz", nil, responds, media.URLForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNet()
			fake.dial = row.dial
			if row.addrs != nil {
				fake.names["x.test"], fake.names["xn--bcher-kva.test"] = row.addrs, row.addrs
			}
			r := rules()
			r.ConnectTimeout = pipeline.Duration(100 * time.Millisecond)
			err := fake.fetcher().Reach(t.Context(), row.url, r)
			if row.want == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			failed(t, nil, err, row.want)
		})
	}
}

func testReachTLSHandshakeIsVerified(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	fake := newFakeNet()
	fake.names["example.com"] = []string{publicV4}
	fake.servers[net.JoinHostPort(publicV4, "443")] = server.Listener.Addr().String()
	network := fake.network()
	network.Roots = x509.NewCertPool()
	failed(t, nil, newFetcher(network, 0).Reach(t.Context(), "https://example.com", rules()), media.TLSFailed)
	network.Roots.AddCert(server.Certificate())
	if err := newFetcher(network, 0).Reach(t.Context(), "https://example.com", rules()); err != nil {
		t.Errorf("got %v", err)
	}
}

func testReachEndedContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	fake := newFakeNet()
	fake.fallback = publicV4
	fake.dial = pipeTo(func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1000))
		cancel()
		_, _ = io.Copy(io.Discard, c)
	})
	if err := fake.fetcher().Reach(ctx, "http://x.test", rules()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
