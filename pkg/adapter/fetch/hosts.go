package fetch

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/slots"
)

// networkFactor is how many times fetch.perHost one network may have: the sites of different users share the addresses of a
// content delivery network. The limit is for names that all point to one server.
const networkFactor = 4

// networkOf returns the network that a connection to addr counts as: an IPv4 /24 or an IPv6 /48.
func networkOf(addr netip.Addr) netip.Prefix {
	bits := 24
	if addr = addr.Unmap(); addr.Is6() {
		bits = 48
	}
	network, err := addr.Prefix(bits)
	if err != nil { // an address with a zone; it is never permitted
		return netip.Prefix{}
	}
	return network
}

// sameNetwork returns how many addresses at the beginning of addrs, which is not empty, are of one network.
func sameNetwork(addrs []netip.AddrPort) int {
	first := networkOf(addrs[0].Addr())
	n := slices.IndexFunc(addrs, func(addr netip.AddrPort) bool { return networkOf(addr.Addr()) != first })
	if n < 0 {
		return len(addrs)
	}
	return n
}

// limits are the limits of concurrent downloads.
type limits struct {
	hosts    *slots.Slots[string]       // by catalog.HostKey
	networks *slots.Slots[netip.Prefix] // connections
	perHost  int
	wait     time.Duration // maximum, for each slot
}

// busy returns the failure of a download whose next host has no free slot. The job counts as that host's from then on.
func busy(host, detail string) error {
	return &media.Failure{Code: media.HostBusy, Detail: detail, Host: host}
}

// network acquires a slot of the network of addr for a connection to host. The probes of egress have no limits.
func (l limits) network(ctx context.Context, host string, addr netip.Addr) (release func(), err error) {
	if l.networks == nil {
		return func() {}, nil
	}
	wait, cancel := context.WithTimeout(ctx, l.wait)
	defer cancel()
	release, ok := l.networks.Acquire(wait, networkOf(addr), networkFactor*l.perHost)
	switch {
	case ok:
		return release, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		return nil, busy(catalog.HostKey("//"+net.JoinHostPort(host, "0")),
			"the network of this host has as many connections as its limit allows")
	}
}

// hops are the host slots of one download beside that of its first host, which the caller holds.
type hops struct {
	limits
	mu       sync.Mutex
	held     map[string]bool
	releases []func()
}

// enter acquires a slot of the host to which via redirects, unless the download holds one.
func (h *hops) enter(ctx context.Context, req *http.Request, via []*http.Request) error {
	host := catalog.HostKey("//" + req.URL.Host)
	h.mu.Lock()
	defer h.mu.Unlock()
	if host == catalog.HostKey("//"+via[0].URL.Host) || h.held[host] {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, h.wait)
	defer cancel()
	release, ok := h.hosts.Acquire(wait, host, h.perHost)
	switch {
	case ok:
		h.held[host] = true
		h.releases = append(h.releases, release)
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return busy(host, "the host to which the source redirects has as many downloads as its limit allows")
	}
}

// leave releases all slots.
func (h *hops) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, release := range h.releases {
		release()
	}
	h.releases = nil
}

// slotConn is a connection that holds a slot of its network until it is closed.
type slotConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c slotConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
