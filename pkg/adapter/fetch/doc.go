// Package fetch downloads one image from an untrusted URL without reaching addresses that are not public (SSRF).
//
// Addresses are checked when a connection is dialled, for every connection. [Fetcher.Fetch] resolves a host's name
// itself, once, checks each address, and dials the checked address instead of the name. A name whose answer changes, a
// redirect, an unusual spelling of an address, or an address inside another one (IPv4 in IPv6, NAT64, 6to4, Teredo,
// ISATAP) is therefore checked like any other. An address must be public, and its port one of pipeline.Bounds.AllowPorts.
// Networks in AllowCIDRs are reachable on every port, whether public or not; the operator is responsible for their width.
// If a name has several addresses, the forbidden ones are skipped; if no other is left, the URL is forbidden.
//
// A connection serves one request and is closed, so no connection is reused under other rules. No proxy is used, and no
// cookie, credential or referrer is sent, even after redirects. The number of redirects is limited, and their URLs are
// checked like the first one. A redirect from https to http is followed, because the request contains nothing secret.
//
// The number of bytes of the body is limited while it is read, before and after decompression, regardless of the
// announced length. Memory grows with the received bytes. Config.MaxInFlight limits the memory of all bodies of a
// process: before a download dials, it reserves the maximum size of its body and waits, first in, first out. It releases
// what it does not need as soon as the length is known, and the rest when its caller drops the body. A buffer that grows
// needs up to half as much in addition for a moment. A download whose maximum exceeds MaxInFlight reserves all of it and
// runs alone.
//
// Every step has a time limit, and a source that stays below Config.MinRate is aborted before the limit of the whole
// download.
//
// A failed lookup is the source's fault, dns_failed, if the resolver answers that the name does not exist. Without an
// answer, Config.ControlNames tell whether the resolver is at fault: resolver_unavailable. [Fetcher.Reach] connects to a
// host without a download, by the same rules.
//
// Errors are *media.Failure; its Detail is for the client and contains no addresses, its Cause is for logs. When the
// caller's context ends, Fetch returns the context's error unchanged.
package fetch
