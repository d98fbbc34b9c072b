// Package fetch downloads one picture from a URL that a stranger gave us, without letting the stranger reach anything else.
//
// What is refused is decided where it cannot be got around: at the moment of dialling, for every connection. [Fetcher.Fetch]
// resolves a host's name itself, once, checks each address, and dials the checked address and no name; so a name that
// changes its answer, a redirect, an odd spelling of an address or one hidden in another (IPv4 in IPv6, NAT64, 6to4,
// Teredo, ISATAP) gains nothing. An address must be public, and its port one of pipeline.Fetch.AllowPorts. What
// AllowCIDRs names may be reached whatever it is, on every port; that a wide range there lets in is the operator's word.
// Of several addresses of a name the forbidden ones are passed over, and if none is left the URL is forbidden.
//
// A connection serves one request and is closed: none is left over that was opened under other rules. No proxy, cookie,
// credential or referrer goes along, also not over redirects, which are followed only so far and checked like the first
// URL. One may lead from https to http: nothing of ours goes along that could be overheard.
//
// The body is bounded as it is read, compressed and uncompressed, whatever its announced length; memory grows with what
// comes, not with what was announced. All bodies of a process together are bounded by Config.MaxInFlight: before anybody is
// spoken to, a download waits, in the order of coming, until its largest body has room, and it gives back what it turns out
// not to need as soon as the length is known, and the rest when its caller drops the body. A buffer that grows briefly takes
// half as much again. A picture whose limit exceeds all there is runs alone.
//
// Every step has a time limit, and a source that trickles is given up before the whole
// limit has passed.
//
// Errors are *media.Failure; its Detail is for the client and says nothing about addresses, its Cause is for logs. When
// the caller's own context ends, its error is returned as it is.
package fetch
