package fetch

import (
	"net/netip"
	"slices"
	"strings"
)

// addressRules are the address rules of all downloads.
type addressRules struct {
	allowed []netip.Prefix // reachable on every port, public or not
	ports   []uint16       // allowed ports of all other addresses
}

// permits reports whether addr, which must be unmapped, may be dialled at port. It never permits an address with a zone,
// which names an interface of this machine, because no prefix contains such an address.
func (g addressRules) permits(addr netip.Addr, port uint16) bool {
	if slices.ContainsFunc(g.allowed, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return true
	}
	return public(addr) && slices.Contains(g.ports, port)
}

// specialPurpose lists networks without public hosts: IANA's special-purpose registries
// (iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry), and the metadata services of clouds.
//
//nolint:gochecknoglobals // a table
var specialPurpose = prefixes(
	"0.0.0.0/8",         // this network
	"10.0.0.0/8",        // private
	"100.64.0.0/10",     // carrier-grade NAT; 100.100.100.200 is Alibaba's metadata
	"127.0.0.0/8",       // loopback
	"168.63.129.16/32",  // Azure's host agent
	"169.254.0.0/16",    // link-local; 169.254.169.254 is most clouds' metadata
	"172.16.0.0/12",     // private
	"192.0.0.0/24",      // protocol assignments; 192.0.0.192 is Oracle's metadata
	"192.0.2.0/24",      // documentation
	"192.31.196.0/24",   // AS112
	"192.52.193.0/24",   // AMT relays
	"192.88.99.0/24",    // 6to4 relays
	"192.168.0.0/16",    // private
	"192.175.48.0/24",   // AS112
	"198.18.0.0/15",     // benchmarking
	"198.51.100.0/24",   // documentation
	"203.0.113.0/24",    // documentation
	"224.0.0.0/4",       // multicast
	"240.0.0.0/4",       // reserved, and broadcast
	"2001::/23",         // protocol assignments, Teredo (2001::/32, which embeds IPv4) and ORCHID among them
	"2001:db8::/32",     // documentation
	"2002::/16",         // 6to4, which embeds IPv4
	"2620:4f:8000::/48", // AS112
	"3fff::/20",         // documentation
)

// unicast6 is the part of IPv6 that is assigned to public hosts. It excludes ::, ::1 and IPv4-compatible addresses, NAT64
// (64:ff9b::/96 and 64:ff9b:1::/48), unique local, link-local, site-local and multicast addresses.
//
//nolint:gochecknoglobals // a constant
var unicast6 = netip.MustParsePrefix("2000::/3")

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// public reports whether addr, which must be unmapped, is the address of a public host.
func public(addr netip.Addr) bool {
	if slices.ContainsFunc(specialPurpose, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return false
	}
	return addr.Is4() || unicast6.Contains(addr) && !isISATAP(addr)
}

// isISATAP reports whether an IPv6 address embeds an IPv4 address by RFC 5214: ...:0:5efe:a.b.c.d with any prefix.
func isISATAP(addr netip.Addr) bool {
	b := addr.As16()
	return b[8]&^0x02 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// literal returns the address if host is one. ok is false if host is neither an address nor a valid name. Among those are
// the unusual spellings of IPv4 that other programs accept ("127.1", "0x7f000001", "2130706433", "127.0.0.1."), by the rule
// of browsers (url.spec.whatwg.org, "ends in a number"); some resolvers accept them, too.
func literal(host string) (addr netip.Addr, isAddress, ok bool) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr, true, true
	}
	host = strings.TrimSuffix(host, ".")
	labels := strings.Split(host, ".")
	valid := len(host) <= maxName && !slices.ContainsFunc(labels, invalidLabel)
	return netip.Addr{}, false, valid && !isNumber(labels[len(labels)-1])
}

// The maximum lengths of a name and of a label, in bytes (RFC 1035, 2.3.4).
const (
	maxName  = 253 // without the dot at the end
	maxLabel = 63
)

// invalidLabel reports whether text is not a label of a host's name. Underscores are valid here, although not in the RFC,
// because many names in use have them.
func invalidLabel(text string) bool {
	return text == "" || len(text) > maxLabel || strings.ContainsFunc(text, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
	})
}

// isNumber reports whether label is a decimal, octal or hexadecimal number in the syntax of C.
func isNumber(label string) bool {
	digits, hex := strings.CutPrefix(strings.ToLower(label), "0x")
	return !strings.ContainsFunc(digits, func(c rune) bool {
		return (c < '0' || c > '9') && (!hex || c < 'a' || c > 'f')
	})
}
