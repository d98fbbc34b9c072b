package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/media"
)

// maxAddresses is how many addresses of a name are dialled. They share the connect timeout.
const maxAddresses = 4

// connector opens the connections of one download.
type connector struct {
	guard   addressRules
	network Network
	timeout time.Duration // for name, connection and TLS together
	now     func() time.Time
	limits  limits
	log     *zap.Logger
}

// dial opens a connection to address, "host:port" in the form of net/http: the host in ASCII, with a port. The connection
// holds a slot of its network. The waits for slots are not part of the timeout.
func (c connector) dial(ctx context.Context, address string, secure bool) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, forbidden("the host is not valid", err)
	}
	start := time.Now()
	lookup, cancel := context.WithTimeout(ctx, c.timeout)
	addrs, err := c.permitted(lookup, host, port)
	cancel()
	if err != nil {
		return nil, err
	}
	conn, left, err := c.connect(ctx, host, addrs, c.timeout-time.Since(start))
	if err != nil || !secure {
		return conn, err
	}
	ctx, cancel = context.WithTimeout(ctx, left)
	defer cancel()
	return c.encrypt(ctx, host, conn)
}

// connect opens a TCP connection to the first address that accepts one, and returns it with what is left of timeout. Each
// run of addresses of one network is dialled with a slot of that network, which the connection keeps.
func (c connector) connect(
	ctx context.Context, host string, addrs []netip.AddrPort, timeout time.Duration,
) (conn net.Conn, left time.Duration, err error) {
	for left = timeout; len(addrs) > 0; {
		var release func()
		if release, err = c.limits.network(ctx, host, addrs[0].Addr()); err != nil {
			return nil, 0, err
		}
		n, start := sameNetwork(addrs), time.Now()
		conn, err = c.dialFirst(ctx, left, host, addrs[:n], len(addrs))
		left -= time.Since(start)
		if err == nil {
			return slotConn{conn, release}, left, nil
		}
		release()
		addrs = addrs[n:]
	}
	return nil, 0, err
}

// encrypt returns conn with TLS. It closes conn if the handshake fails.
func (c connector) encrypt(ctx context.Context, host string, conn net.Conn) (net.Conn, error) {
	// Only HTTP/1.1 is offered, since HTTP/2 is no faster for a single request.
	encrypted := tls.Client(conn, &tls.Config{
		ServerName: host, RootCAs: c.network.Roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	})
	if err := encrypted.HandshakeContext(ctx); err != nil {
		conn.Close() //nolint:errcheck // it was never used
		return nil, connectFailure(media.TLSFailed, "there is no trusted TLS connection to the source", err)
	}
	return encrypted, nil
}

// connectFailure returns the *media.Failure for an error of a connection. Its code is Timeout or the given one.
func connectFailure(code media.Code, detail string, err error) error {
	if isTimeout(err) {
		return media.Fail(media.Timeout, "the source took too long to connect", err)
	}
	return media.Fail(code, detail, err)
}

// permitted resolves the host and returns the first of its permitted addresses, at least one and at most maxAddresses.
func (c connector) permitted(ctx context.Context, host, portText string) ([]netip.AddrPort, error) {
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return nil, forbidden("the port is not valid", err)
	}
	addrs, err := c.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	permitted := make([]netip.AddrPort, 0, len(addrs))
	for _, addr := range addrs {
		if addr = addr.Unmap(); c.guard.permits(addr, uint16(port)) {
			permitted = append(permitted, netip.AddrPortFrom(addr, uint16(port)))
		}
	}
	if len(permitted) == 0 {
		return nil, forbidden("the address or the port is not allowed",
			fmt.Errorf("%s is %v", net.JoinHostPort(host, portText), addrs))
	}
	return permitted[:min(len(permitted), maxAddresses)], nil
}

// resolve returns the addresses of host, with one lookup.
func (c connector) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	addr, isAddress, ok := literal(host)
	switch {
	case isAddress:
		return []netip.Addr{addr}, nil
	case !ok:
		return nil, forbidden("the host is neither a name nor a plainly written address", nil)
	}
	began := c.now()
	addrs, err := c.network.Resolver.LookupNetIP(ctx, "ip", host)
	switch {
	case err != nil && !isNotFound(err):
		err = &noAnswer{began, err}
	case err == nil && len(addrs) == 0:
		err = fmt.Errorf("%s has no address", host)
	}
	if err != nil {
		return nil, media.Fail(media.DNSFailed, "the host's name does not resolve", err)
	}
	return addrs, nil
}

// dialFirst dials addrs one after the other and returns the first connection. Each gets its share of timeout, which is for
// all addresses that are still to be dialled.
func (c connector) dialFirst(
	ctx context.Context, timeout time.Duration, host string, addrs []netip.AddrPort, all int,
) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var last error
	for i, addr := range addrs {
		attempt, cancel := share(ctx, all-i)
		conn, err := c.network.Dial(attempt, "tcp", addr.String())
		cancel()
		c.log.Debug("source dialled", zap.String("host", host), zap.Stringer("address", addr), zap.Error(err))
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, connectFailure(media.ConnectFailed, "there is no connection to the source", last)
}

// share returns the context for the next of attempts. The last one has no deadline of its own. Its deadline would be the
// caller's, and its timer could expire just before the caller's; the result would then be a slow source instead of the
// end of the caller's context.
func share(ctx context.Context, attempts int) (context.Context, context.CancelFunc) {
	deadline, limited := ctx.Deadline()
	if !limited || attempts == 1 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(attempts))
}

// Network is the access to the network.
type Network struct {
	Resolver Resolver
	Dial     func(ctx context.Context, network, address string) (net.Conn, error) // is called with addresses, never with names
	Roots    *x509.CertPool                                                       // the trusted CAs; nil: the system's
}

// Resolver finds the addresses of a name.
type Resolver interface {
	// LookupNetIP returns the addresses of host; network is "ip". *net.Resolver implements it.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Internet returns the network of this machine. nameServer, an address with a port, resolves the names; "" means those of
// /etc/resolv.conf.
func Internet(nameServer string) Network {
	dialer := &net.Dialer{}
	resolver := &net.Resolver{}
	if nameServer != "" {
		resolver.PreferGo = true // only this resolver uses Dial
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, nameServer)
		}
	}
	return Network{Resolver: resolver, Dial: dialer.DialContext}
}
