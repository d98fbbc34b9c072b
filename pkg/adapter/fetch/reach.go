package fetch

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/idna"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// Reach connects to the host of rawURL as a download does, and returns nil if it responds, within rules.ConnectTimeout and
// at most as long again. An https host has to complete a TLS handshake. An http host has to send a byte: a sidecar or
// a firewall may accept every connection itself. Errors are *media.Failure, or ctx's error.
func (f *Fetcher) Reach(ctx context.Context, rawURL string, rules pipeline.Fetch) error {
	address, secure, err := target(rawURL)
	if err != nil {
		return err
	}
	conn, err := f.connector(rules).dial(ctx, address, secure)
	if err == nil {
		defer conn.Close()
		err = respond(ctx, conn, address, secure, rules.ConnectTimeout.D())
	}
	if err != nil {
		return f.controls.blame(ctx, classify(ctx, ctx, err))
	}
	return nil
}

// target returns the address that net/http dials for a URL, and whether it speaks TLS with it.
func target(rawURL string) (address string, secure bool, err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", false, forbidden("the URL is not valid", nil)
	}
	if err := checkForm(u); err != nil {
		return "", false, err
	}
	host := u.Hostname()
	if strings.ContainsFunc(host, func(r rune) bool { return r > '~' }) {
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return "", false, forbidden("the host is not valid", err)
		}
	}
	secure = u.Scheme == "https"
	port := u.Port()
	switch {
	case port == "" && secure:
		port = "443"
	case port == "":
		port = "80"
	}
	return net.JoinHostPort(host, port), secure, nil
}

// respond returns nil once the host has sent a byte, or at once after a handshake.
func respond(ctx context.Context, conn net.Conn, address string, secure bool, timeout time.Duration) error {
	if secure {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return fmt.Errorf("limit the time: %w", err)
	}
	if _, err := fmt.Fprintf(conn, "HEAD / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", address); err != nil {
		return fmt.Errorf("send a request: %w", err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return connectFailure(media.ConnectFailed, "the source does not respond", err)
	}
	return nil
}
