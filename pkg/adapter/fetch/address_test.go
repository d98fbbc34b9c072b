package fetch_test

import (
	"encoding/binary"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"vitrine.io/pkg/foundation/media"
)

func TestAddress(t *testing.T) {
	t.Parallel()
	t.Run("public_is_dialled", testAddressPublicIsDialled)
	t.Run("forbidden_of_a_name_is_skipped", testAddressForbiddenOfANameIsSkipped)
	t.Run("next_is_dialled_after_failure", testAddressNextIsDialledAfterFailure)
	t.Run("dials_are_limited", testAddressDialsAreLimited)
	t.Run("allowed_networks_are_dialled_on_every_port", testAddressAllowedNetworksAreDialledOnEveryPort)
	t.Run("name_is_resolved_once", testAddressNameIsResolvedOnce)
	t.Run("special_purpose_is_forbidden", testAddressSpecialPurposeIsForbidden)
}

func testAddressPublicIsDialled(t *testing.T) {
	t.Parallel()
	cases := map[string]string{
		"http://name.test/":                publicV4 + ":80",
		"http://NAME.test/":                publicV4 + ":80",
		"http://" + publicV4 + "/":         publicV4 + ":80",
		"http://[" + publicV6 + "]/":       "[" + publicV6 + "]:80",
		"http://[::ffff:" + publicV4 + "]": publicV4 + ":80",
		"http://mapped.test/":              publicV4 + ":80",
		"http://name.test:443/":            publicV4 + ":443",
		"http://bücher.test/":              publicV4 + ":80",
		"http://1and1.test0/":              publicV4 + ":80",
		"http://172.15.0.1/":               "172.15.0.1:80",
		"http://172.32.0.1/":               "172.32.0.1:80",
		"http://100.63.255.255/":           "100.63.255.255:80",
		"http://168.63.129.17/":            "168.63.129.17:80",
		"http://198.20.0.1/":               "198.20.0.1:80",
		"http://223.255.255.255/":          "223.255.255.255:80",
		"http://[2a00::5efe:1]/":           "[2a00::5efe:1]:80",
	}
	for url, want := range cases {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNet()
			fake.names = map[string][]string{
				"name.test": {publicV4}, "NAME.test": {publicV4}, "mapped.test": {"::ffff:" + publicV4},
				"xn--bcher-kva.test": {publicV4}, "1and1.test0": {publicV4},
			}
			fake.fails(t, url, media.ConnectFailed) // fakeNet has no server there
			if got := fake.dials(); !slices.Equal(got, []string{want}) {
				t.Errorf("got %v, want %s", got, want)
			}
		})
	}
}

func testAddressForbiddenOfANameIsSkipped(t *testing.T) {
	t.Parallel()
	fake := newFakeNet()
	fake.site(t, "both.test", publicV4, "80", answer(http.StatusOK, "content"))
	fake.names["both.test"] = []string{"10.0.0.1", "::1", publicV4}
	if _, err := fake.fetcher().Fetch(t.Context(), "http://both.test/", rules(), 100); err != nil {
		t.Fatal(err)
	}
	if got, want := fake.dials(), []string{publicV4 + ":80"}; !slices.Equal(got, want) {
		t.Errorf("dialled %v, want %v", got, want)
	}
}

func testAddressNextIsDialledAfterFailure(t *testing.T) {
	t.Parallel()
	fake := newFakeNet()
	fake.site(t, "two.test", publicV4, "80", answer(http.StatusOK, "content"))
	fake.names["two.test"] = []string{publicV6, publicV4}
	if _, err := fake.fetcher().Fetch(t.Context(), "http://two.test/", rules(), 100); err != nil {
		t.Fatal(err)
	}
}

func testAddressDialsAreLimited(t *testing.T) {
	t.Parallel()
	fake := newFakeNet()
	for range 50 {
		fake.names["many.test"] = append(fake.names["many.test"], publicV4)
	}
	fake.fails(t, "http://many.test/", media.ConnectFailed)
	if got, want := len(fake.dials()), 4; got != want {
		t.Errorf("%d dials, want %d", got, want)
	}
}

func testAddressAllowedNetworksAreDialledOnEveryPort(t *testing.T) {
	t.Parallel()
	cases := map[string]string{
		"http://127.0.0.1:9000/":          "127.0.0.1:9000",
		"http://[::1]:22/":                "[::1]:22",
		"http://localhost:1/":             "127.0.0.1:1",
		"http://[::ffff:127.0.0.1]:1234/": "127.0.0.1:1234",
		"http://10.1.2.3/":                "10.1.2.3:80",
		"http://10.2.0.1/":                "",
		"http://[::2]:80/":                "",
		"http://[::127.0.0.1]/":           "",
		"http://93.184.215.14:22/":        "",
	}
	for url, want := range cases {
		fake := newFakeNet()
		fake.names["localhost"] = []string{"127.0.0.1"}
		code := media.ConnectFailed
		if want == "" {
			code = media.URLForbidden
		}
		f := fake.allowing("127.0.0.0/8", "::1/128", "10.1.0.0/16", "nonsense")
		got, err := f.Fetch(t.Context(), url, rules(), 100)
		failed(t, got.Body, err, code)
		if dials := strings.Join(fake.dials(), " "); dials != want {
			t.Errorf("%s: dialled %q, want %q", url, dials, want)
		}
	}
}

// A name is looked up once per connection, so the checked address is the dialled one.
func testAddressNameIsResolvedOnce(t *testing.T) {
	t.Parallel()
	fake := newFakeNet()
	fake.site(t, "once.test", publicV4, "80", answer(http.StatusOK, "content"))
	if _, err := fake.fetcher().Fetch(t.Context(), "http://once.test/", rules(), 100); err != nil {
		t.Fatal(err)
	}
	if want := []string{"once.test"}; !slices.Equal(fake.lookups, want) {
		t.Errorf("lookups: got %v, want %v", fake.lookups, want)
	}
}

// reachable reports whether an address may be dialled. It is implemented independently of the package: with the standard
// library where possible, and with explicit bits.
func reachable(a netip.Addr) bool {
	if a.Zone() != "" || a.Is4In6() || !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsMulticast() {
		return false
	}
	if a.Is4() {
		n := a.As4()
		v := binary.BigEndian.Uint32(n[:])
		return n[0] != 0 && v>>22 != 100<<2|1 && v>>17 != (198<<8|18)>>1 && n[0] < 224 &&
			v>>8 != 192<<16 && v>>8 != 192<<16|2 && v>>8 != 198<<16|51<<8|100 && v>>8 != 203<<16|113 &&
			v != 168<<24|63<<16|129<<8|16
	}
	b := a.As16()
	return b[0]>>5 == 1 && // 2000::/3
		(b[0] != 0x20 || b[1] != 0x02) && // 6to4
		(b[0] != 0x20 || b[1] != 0x01 || b[2] > 1) && // Teredo and its neighbours
		(b[0] != 0x20 || b[1] != 0x01 || b[2] != 0x0d || b[3] != 0xb8) && // documentation
		(b[10] != 0x5e || b[11] != 0xfe || b[8]&0xfd != 0 || b[9] != 0) // ISATAP
}

// dialledOnlyReachable requires that fake has dialled only public addresses and allowed ports.
func dialledOnlyReachable(t *testing.T, fake *fakeNet) {
	t.Helper()
	for _, address := range fake.dials() {
		a, err := netip.ParseAddrPort(address)
		if err != nil || !reachable(a.Addr()) || a.Port() != 80 && a.Port() != 443 {
			t.Errorf("%q was dialled", address)
		}
	}
}

func testAddressSpecialPurposeIsForbidden(t *testing.T) {
	t.Parallel()
	networks := []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.0.2.0/24",
		"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/96",
		"::ffff:0:0/96",
		"64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2001:db8::/32", "2002::/16", "fc00::/7", "fe80::/10", "fec0::/10",
		"ff00::/8",
	}
	rapid.Check(t, func(t *rapid.T) {
		prefix := netip.MustParsePrefix(rapid.SampledFrom(networks).Draw(t, "network"))
		bytes := prefix.Addr().AsSlice()
		for i, host := range rapid.SliceOfN(rapid.Byte(), len(bytes), len(bytes)).Draw(t, "host") {
			free := min(max((i+1)*8-prefix.Bits(), 0), 8)
			bytes[i] |= host & (1<<free - 1)
		}
		addr, _ := netip.AddrFromSlice(bytes)
		fake := newFakeNet()
		fake.names["x.test"] = []string{addr.String()}
		_, err := fake.fetcher().Fetch(t.Context(), "http://x.test/", rules(), 100)
		if mapped := addr.Unmap(); mapped.Is4() && reachable(mapped) {
			return
		}
		if f := media.FailureOf(err); f == nil || f.Code != media.URLForbidden || len(fake.dials()) > 0 {
			t.Fatalf("%v: got %v, dialled %v", addr, err, fake.dials())
		}
	})
}

func FuzzAddress(f *testing.F) {
	for _, text := range []string{
		publicV4, publicV6, "127.0.0.1", "::1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "2606:4700::5efe:127.0.0.1",
	} {
		f.Add(netip.MustParseAddr(text).AsSlice(), uint16(80))
	}
	f.Fuzz(func(t *testing.T, bytes []byte, port uint16) {
		addr, ok := netip.AddrFromSlice(bytes)
		if !ok {
			return
		}
		fake := newFakeNet()
		fake.names["x.test"] = []string{addr.String()}
		url := "http://" + netip.AddrPortFrom(addr, port).String() + "/"
		for _, url := range []string{url, strings.Replace(url, addr.String(), "x.test", 1)} {
			if _, err := fake.fetcher().Fetch(t.Context(), url, rules(), 100); err == nil {
				t.Errorf("%s was fetched", url)
			}
		}
		dialledOnlyReachable(t, fake)
	})
}

// FuzzURL fetches any URL, given by a client and by a redirect of a public site, with a resolver that resolves every name.
func FuzzURL(f *testing.F) {
	for url := range hostileURLs() {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		fake := newFakeNet()
		fake.names, fake.fallback = hostileNames, publicV4
		fake.dial = func(string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				request := make([]byte, 64<<10) // in one read: neither side of a pipe buffers
				if _, err := server.Read(request); err != nil {
					return
				}
				_, _ = server.Write([]byte("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close\r\nLocation: " +
					strings.Map(printable, url) + "\r\n\r\n"))
			}()
			return client, nil
		}
		r := rules()
		r.MaxRedirects = 2
		for _, url := range []string{url, "http://public.test/"} {
			if _, err := fake.fetcher().Fetch(t.Context(), url, r, 100); err == nil {
				t.Errorf("%q was fetched", url)
			}
		}
		dialledOnlyReachable(t, fake)
	})
}

// printable drops control characters; it is for strings.Map.
func printable(c rune) rune {
	if c < ' ' || c == 0x7f {
		return -1
	}
	return c
}
