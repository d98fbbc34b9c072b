package fetch_test

import (
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode"

	"vitrine.io/pkg/foundation/media"
)

// minHostile is the minimum number of URLs in hostile, so that none is removed accidentally.
const minHostile = 400

// hostile holds known URLs that try to reach forbidden addresses, by kind. Their names resolve by hostileNames, like names
// in a zone under the attacker's control.
var hostile = map[string][]string{
	"this_machine": {
		"http://127.0.0.1/", "http://127.0.0.1:80/", "http://127.0.0.1:/", "http://127.8.9.10/", "http://127.255.255.254/",
		"http://0.0.0.0/", "http://0.0.0.0:443/", "http://0.1.2.3/", "http://0.255.255.255/", "https://127.0.0.1/",
		"http://[::]/", "http://[::]:443/", "http://[::1]/", "http://[::1]:80/", "https://[::1]/",
		"http://[0:0:0:0:0:0:0:1]/",
		"http://[0000:0000:0000:0000:0000:0000:0000:0001]/", "http://[0:0::0:1]/", "http://[::0.0.0.1]/",
	},
	"private_networks": {
		"http://10.0.0.1/", "http://10.255.255.255/", "http://172.16.0.1/", "http://172.31.255.254/", "http://192.168.0.1/",
		"http://192.168.255.255/", "http://100.64.0.1/", "http://100.127.255.255/", "http://[fc00::1]/",
		"http://[fd12:3456::1]/",
		"http://[fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]/", "http://[fec0::1]/", "http://[feff::1]/",
	},
	"link_local": {
		"http://169.254.0.1/", "http://169.254.255.255/", "http://[fe80::1]/", "http://[febf::1]/",
		"http://[fe80::1%25eth0]/",
		"http://[fe80::1%251]/", "http://[fe80::1%25]/", "http://[2606:4700:4700::1111%25lo]/", "http://[::1%25lo]/",
		"http://[fe80::1%eth0]/",
	},
	"cloud_metadata": {
		"http://169.254.169.254/latest/meta-data/", "http://169.254.169.254:80/computeMetadata/v1/",
		"http://169.254.170.2/v2/credentials", "http://169.254.169.253/", "http://169.254.169.123/",
		"http://169.254.42.42/",
		"http://169.254.170.23/", "http://100.100.100.200/latest/", "http://168.63.129.16/metadata",
		"http://192.0.0.192/opc/v2/",
		"http://[fd00:ec2::254]/latest/", "http://[fd00:ec2::253]/", "http://[fd00:42::42]/", "http://[fd20:ce::254]/",
		"http://metadata.google.internal/", "http://metadata/", "http://METADATA.google.internal./",
		"http://instance-data/",
		"http://imds.test/", "http://imds6.test/", "http://alibaba.test/", "http://azure.test/", "http://oracle.test/",
	},
	"reserved_networks": {
		"http://192.0.0.8/", "http://192.0.0.255/", "http://192.0.2.1/", "http://192.88.99.1/", "http://198.18.0.1/",
		"http://198.19.255.255/", "http://198.51.100.7/", "http://203.0.113.9/", "http://192.31.196.1/",
		"http://192.52.193.1/",
		"http://192.175.48.1/", "http://240.0.0.1/", "http://250.1.2.3/", "http://255.255.255.254/",
		"http://255.255.255.255/",
		"http://[2001:db8::1]/", "http://[2001:db8:ffff::1]/", "http://[3fff::1]/", "http://[3fff:fff::1]/",
		"http://[2001:2::1]/",
		"http://[2001:10::1]/", "http://[2001:20::1]/", "http://[2620:4f:8000::1]/", "http://[100::1]/",
		"http://[5f00::1]/",
		"http://[4000::1]/", "http://[1fff::1]/", "http://[e000::1]/",
	},
	"multicast": {
		"http://224.0.0.1/", "http://232.1.2.3/", "http://239.255.255.250/", "http://[ff02::1]/", "http://[ff0e::1]/",
		"http://[ff02::1%25eth0]/", "http://[ff00::]/",
	},
	"ipv4_inside_ipv6": {
		"http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::FFFF:7F00:1]/",
		"http://[0:0:0:0:0:ffff:127.0.0.1]/",
		"http://[::ffff:169.254.169.254]/", "http://[::ffff:a9fe:a9fe]/", "http://[::ffff:10.0.0.1]/",
		"http://[::ffff:0.0.0.0]/",
		"http://[::ffff:192.168.1.1]:80/", "http://[::ffff:100.64.0.1]/", "http://[::ffff:127.0.0.1%25lo]/",
		"http://[::ffff:0:127.0.0.1]/", "http://[::ffff:0:7f00:1]/", "http://[::127.0.0.1]/", "http://[::7f00:1]/",
		"http://[::169.254.169.254]/", "http://[::10.0.0.1]/", "http://[::93.184.215.14]/",
		"http://[::ffff:0:93.184.215.14]/",
	},
	"ipv4_behind_a_translator_or_a_tunnel": {
		"http://[64:ff9b::127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::a9fe:a9fe]/",
		"http://[64:ff9b::10.0.0.1]/",
		"http://[64:ff9b::93.184.215.14]/", "http://[64:ff9b:1::a00:1]/", "http://[64:ff9b:1::127.0.0.1]/",
		"http://[64:ff9b:1:fffe::169.254.169.254]/", "http://[64:ff9b:1:ffff:ffff:ffff:ffff:ffff]/",
		"http://[2002:7f00:1::]/", "http://[2002:7f00:1::1]/", "http://[2002:a9fe:a9fe::1]/", "http://[2002:a00:1::]/",
		"http://[2002:c0a8:101::1]/", "http://[2002:5db8:d70e::1]/", "http://[2001:0:53aa:64c:0:0:80ff:fffe]/",
		"http://[2001:0:4136:e378:8000:63bf:5601:5601]/", "http://[2001::1]/", "http://[2606:4700::5efe:127.0.0.1]/",
		"http://[2606:4700::5efe:7f00:1]/", "http://[2606:4700::200:5efe:10.0.0.1]/", "http://[fe80::5efe:10.0.0.1]/",
		"http://[2606:4700::5efe:169.254.169.254]/", "http://[2a00:1450:4001:81b:0:5efe:c0a8:101]/",
	},
	"one_number": {
		"http://2130706433/", "http://2130706433:80/", "http://017700000001/", "http://0x7f000001/", "http://0X7F000001/",
		"http://0x7F000001./", "http://4294967297/", "http://6425673729/", "http://0/", "http://0./", "http://00/",
		"http://0x/",
		"http://0x0/", "http://1/", "http://3232235777/", "http://2852039166/", "http://0xa9fea9fe/",
		"http://025177524776/",
		"http://0000000000000000000000000177700000001/", "http://18446744073709551617/", "http://-1/",
		"http://+2130706433/",
	},
	"short_and_mixed_forms": {
		"http://127.1/", "http://127.0.1/", "http://127.65535/", "http://0x7f.1/", "http://0X7F.1/", "http://0x7f.0.0.1/",
		"http://0x7f.0x0.0x0.0x1/", "http://0177.0.0.1/", "http://0177.1/", "http://0177.0x0.0.1/", "http://127.0x1/",
		"http://127.0.0.01/", "http://127.000.000.001/", "http://0127.0.0.1/", "http://127.0.0.0x1/", "http://127.0.0.1./",
		"http://127.1./", "http://10.1/", "http://192.168.257/", "http://169.254.43518/", "http://0xa9.0xfe.0xa9.0xfe/",
		"http://0251.0376.0251.0376/", "http://169.0376.0xa9.254/", "http://0.0/", "http://0.0.0/", "http://1.2.3.4.5/",
		"http://256.256.256.256/", "http://127.0.0.256/", "http://example.0x7f/", "http://example.1/",
		"http://a.127.0.0.1/",
		"http://127.0.0.1../", "http://.127.0.0.1/", "http://127..0.0.1/",
	},
	"other_scripts": {
		"http://１２７.０.０.１/", "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://１２７。０。０。１/", "http://127．0．0．1/",
		"http://127｡0｡0｡1/", "http://２１３０７０６４３３/", "http://０x7f.1/", "http://𝟏𝟐𝟕.𝟎.𝟎.𝟏/", "http://۱۲۷.۰.۰.۱/",
		"http://१२७.०.०.१/",
		"http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", "http://ｌｏｃａｌｈｏｓｔ/", "http://localhost。/", "http://locⅰal.test\u0000/",
		"http://loc\u00adalhost/",
		"http://［：：１］/", "http://127.0.0.1\u3002/",
	},
	"percent_signs": {
		"http://%31%32%37.0.0.1/", "http://%6c%6f%63%61%6c%68%6f%73%74/", "http://127.0.0.1%00.public.test/",
		"http://127.0.0.1%2f@public.test/", "http://127%2e0%2e0%2e1/", "http://%5B::1%5D/",
		"http://%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1/",
		"http://127.0.0.1%20/", "http://127.0.0.1%0d%0a/", "http://public.test%40127.0.0.1/", "http://[::1%2525lo]/",
		"http://%/",
		"http://%zz/",
	},
	"names_of_such_addresses": {
		"http://localhost/", "http://LOCALHOST/", "http://LocalHost:80/", "http://localhost./",
		"http://localhost.localdomain/",
		"http://app.localhost/", "http://a.b.localhost/", "http://printer.local/", "http://nas.lan/", "http://redis/",
		"http://kubernetes.default.svc/", "http://kubernetes.default.svc.cluster.local./", "http://host.docker.internal/",
		"http://ip6-localhost/", "http://127.0.0.1.nip.io/", "http://app.10.0.0.1.nip.io/", "http://7f000001.nip.io/",
		"http://10-0-0-1.sslip.io/", "http://169-254-169-254.sslip.io/", "http://localtest.me/", "http://inside.test/",
		"http://mapped.test/", "http://compatible.test/", "http://six.test/", "http://nat64.test/",
		"http://nat64local.test/",
		"http://teredo.test/", "http://isatap.test/", "http://ula.test/", "http://zoned.test/", "http://multicast.test/",
		"http://broadcast.test/", "http://zero.test/", "http://several.test/", "https://loop.test/",
		"http://_dmarc.inside.test/",
		"http://xn--inside-9za.test/",
	},
	"ports": {
		"http://public.test:1/", "http://public.test:22/", "http://public.test:25/", "http://public.test:53/",
		"http://public.test:6379/", "http://public.test:8080/", "https://public.test:9092/", "http://public.test:0/",
		"https://public.test:0/", "http://public.test:00/", "http://93.184.215.14:25/", "http://[2606:4700:4700::1111]:22/",
		"http://public.test:65535/", "http://public.test:65536/", "http://public.test:65616/",
		"http://public.test:4294967376/",
		"http://public.test:99999999999999999999/", "http://public.test:-80/", "http://public.test:+80/",
		"http://public.test:8 0/",
		"http://public.test:80 /", "http://public.test :80/", "http://public.test:0x50/", "http://public.test:８０/",
		"http://public.test:80:80/", "http://public.test:http/", "http://10.0.0.1:443/", "http://public.test:80,443/",
	},
	"misleading_host": {
		"http://user@public.test/", "http://user:pass@public.test/", "http://:@public.test/", "http://@public.test/",
		"http://public.test@127.0.0.1/", "http://public.test:80@10.0.0.1/", "http://public.test:80%40@10.0.0.1/",
		"http://127.0.0.1@public.test@127.0.0.1/", "http://127.0.0.1#@public.test/",
		"http://127.0.0.1?@public.test/", "http://127.0.0.1;@public.test/", "http://127.0.0.1\\@public.test/",
		"http://public.test\\@127.0.0.1/", "http:\\\\127.0.0.1\\", "http:/\\127.0.0.1/", "http:\\/127.0.0.1/",
		"http://public.test\\.127.0.0.1/", "http://127.0.0.1:80\\@public.test:80/", "http://127.0.0.1&public.test/",
		"http://public.test|127.0.0.1/", "http://public.test,127.0.0.1/", "http://public.test'/", "http://(public).test/",
		"http://public.test;.inside.test/", "http://*.test/", "http://public.test$/", "http://pub!ic.test/",
	},
	"no_host": {
		"http:///etc/passwd", "http://", "http:", "http:/", "http:127.0.0.1", "http:/127.0.0.1/", "http:////127.0.0.1/",
		"http://:80/", "http://?", "http://#", "http://./", "http://../", "http://[]/", "http://[::1", "http://::1/",
		"http://::1]/",
		"http://[::1]]/", "http://[[::1]]/", "http://[127.0.0.1]/", "http://[v1.a]/", "http://[::1].public.test/",
		"http://public.test[::1]/", "http://[::g]/", "http://[1:2:3:4:5:6:7:8:9]/", "http://[:::1]/",
	},
	"no_url": {
		"", " ", "//127.0.0.1/", "//localhost/", "///127.0.0.1/", "/etc/passwd", "127.0.0.1", "localhost/",
		"://127.0.0.1/", ":", "%",
		"\x00", "?", "#",
	},
	"whitespace_and_control_characters": {
		" http://127.0.0.1/", "http:// 127.0.0.1/", "http://127.0.0.1 /", "http://public.test\r\nHost: x/",
		"http://public.test\n/",
		"http://public.test\t/", "http://\t127.0.0.1/", "ht\ntp://127.0.0.1/", "http://127.0.0.1\x00/",
		"http://public.test/\r\n\r\nGET /",
		"http://public.test/\x7f", "http://public.test\v/", "\thttp://127.0.0.1/", "http://public .test/",
		"http://public.test\u00a0/",
		"http://public.test\u2028/",
	},
	"too_long": {
		"http://" + strings.Repeat("a", 64) + ".test/", "http://" + strings.Repeat("a.", 125) + "test/",
		"http://" + strings.Repeat("1", 5000) + "/", "http://public.test:" + strings.Repeat("0", 5000) + "22/",
		"http://" + strings.Repeat("public.test.", 5000) + "/", "http://[" + strings.Repeat("0:", 5000) + "1]/",
		"http://" + strings.Repeat("a", 100_000) + "@127.0.0.1/",
	},
	"other_schemes": {
		"file:///etc/passwd", "file://localhost/etc/passwd", "file:/etc/passwd", "FILE:///etc/passwd", "ftp://public.test/",
		"ftps://public.test/", "sftp://public.test/", "tftp://public.test/", "gopher://127.0.0.1:6379/_FLUSHALL",
		"dict://127.0.0.1:11211/", "ldap://127.0.0.1/", "smb://127.0.0.1/c", "jar:http://public.test!/",
		"netdoc:///etc/passwd",
		"data:image/png;base64,AAAA", "javascript:alert(1)", "blob:http://public.test/x", "about:blank",
		"ws://public.test/",
		"wss://public.test/", "unix:///var/run/docker.sock", "unix:/var/run/docker.sock",
		"http+unix://%2Fvar%2Frun%2Fdocker.sock/",
		"view-source:http://public.test/", "url:http://127.0.0.1/", "httpx://public.test/", "http2://public.test/",
		"h2c://public.test/", "s3://bucket/key", "expect://id", "php://filter/resource=x", "phar://x",
		"mailto:a@public.test",
		"ssh://public.test/", "\\\\127.0.0.1\\c", "hTTps+x://public.test/",
	},
}

var hostileNames = map[string][]string{
	"localhost": {"127.0.0.1", "::1"}, "LOCALHOST": {"127.0.0.1"}, "LocalHost": {"127.0.0.1"}, "localhost.": {"127.0.0.1"},
	"localhost.localdomain": {"127.0.0.1"}, "app.localhost": {"127.0.0.1"}, "a.b.localhost": {"::1"},
	"printer.local": {"169.254.7.7"}, "nas.lan": {"192.168.1.5"}, "redis": {"10.96.3.4"},
	"kubernetes.default.svc": {"10.96.0.1"}, "kubernetes.default.svc.cluster.local.": {"10.96.0.1"},
	"host.docker.internal": {"192.168.65.2"}, "ip6-localhost": {"::1"}, "127.0.0.1.nip.io": {"127.0.0.1"},
	"app.10.0.0.1.nip.io": {"10.0.0.1"}, "7f000001.nip.io": {"127.0.0.1"}, "10-0-0-1.sslip.io": {"10.0.0.1"},
	"169-254-169-254.sslip.io": {"169.254.169.254"}, "localtest.me": {"127.0.0.1", "::1"}, "inside.test": {"10.0.0.1"},
	"_dmarc.inside.test": {"10.0.0.1"}, "xn--inside-9za.test": {"10.0.0.1"}, "loop.test": {"127.0.0.1"},
	"metadata.google.internal": {"169.254.169.254"}, "METADATA.google.internal.": {"169.254.169.254"},
	"metadata": {"169.254.169.254"}, "instance-data": {"169.254.169.254"}, "imds.test": {"169.254.169.254"},
	"imds6.test": {"fd00:ec2::254"}, "alibaba.test": {"100.100.100.200"}, "azure.test": {"168.63.129.16"},
	"oracle.test": {"192.0.0.192"}, "mapped.test": {"::ffff:127.0.0.1"}, "compatible.test": {"::127.0.0.1"},
	"six.test": {"2002:7f00:1::"}, "nat64.test": {"64:ff9b::7f00:1"}, "nat64local.test": {"64:ff9b:1::7f00:1"},
	"teredo.test": {"2001:0:53aa:64c:0:0:80ff:fffe"}, "isatap.test": {"2606:4700::5efe:7f00:1"}, "ula.test": {"fd12:3456::1"},
	"zoned.test": {"2606:4700::1%eth0"}, "multicast.test": {"239.1.1.1", "ff02::1"}, "broadcast.test": {"255.255.255.255"},
	"zero.test": {"0.0.0.0", "::"}, "several.test": {"10.0.0.1", "::1", "169.254.169.254", "::ffff:192.168.0.1"},
	"xn--embcp.xn--dmb.xn--dmb.xn--emb": {"127.0.0.1"}, "xn--e4bcp.xn--d4b.xn--d4b.xn--e4b": {"127.0.0.1"},
	"public.test": {publicV4}, ".": {"127.0.0.1"}, "v1.a": {"127.0.0.1"},
	// the answers of a resolver of the C library
	"2130706433": {"127.0.0.1"}, "017700000001": {"127.0.0.1"}, "0x7f000001": {"127.0.0.1"}, "0X7F.1": {"127.0.0.1"},
	"127.1": {"127.0.0.1"}, "-1": {"127.0.0.1"}, "0": {"0.0.0.0"}, "127.0.0.1.": {"127.0.0.1"},
}

// hostileURLs returns every URL of hostile, in no particular order.
func hostileURLs() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, urls := range hostile {
			for _, url := range urls {
				if !yield(url) {
					return
				}
			}
		}
	}
}

func TestHostileURLs(t *testing.T) {
	t.Parallel()
	t.Run("table_does_not_shrink", testHostileURLsTableDoesNotShrink)
	t.Run("direct_request_is_forbidden", testHostileURLsDirectRequestIsForbidden)
	t.Run("redirect_is_forbidden", testHostileURLsRedirectIsForbidden)
	t.Run("every_hop_is_checked", testHostileURLsEveryHopIsChecked)
}

func testHostileURLsTableDoesNotShrink(t *testing.T) {
	t.Parallel()
	all := slices.Sorted(hostileURLs())
	if got := len(all); got < minHostile {
		t.Errorf("got %d URLs, want at least %d", got, minHostile)
	}
	for i := range all[1:] {
		if all[i] == all[i+1] {
			t.Errorf("%q is a duplicate", all[i])
		}
	}
}

// hostileNet returns a fakeNet whose names resolve by hostileNames.
func hostileNet() *fakeNet {
	fake := newFakeNet()
	for host, addrs := range hostileNames {
		fake.names[host] = addrs
	}
	return fake
}

func testHostileURLsDirectRequestIsForbidden(t *testing.T) {
	t.Parallel()
	for kind, urls := range hostile {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			for _, url := range urls {
				fake := hostileNet()
				_, err := fake.fetcher().Fetch(t.Context(), url, rules(), 1<<20)
				if f := media.FailureOf(err); f == nil || f.Code != media.URLForbidden {
					t.Errorf("%.80q: got %.200v, want %s", url, err, media.URLForbidden)
				}
				if got := fake.dials(); len(got) > 0 {
					t.Errorf("%.80q: %v was dialled", url, got)
				}
			}
		})
	}
}

func testHostileURLsRedirectIsForbidden(t *testing.T) {
	t.Parallel()
	for kind, urls := range hostile {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			fake := hostileNet()
			var target string
			fake.site(t, "start.test", otherV4, "80", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header()["Location"] = []string{target}
				rw.WriteHeader(http.StatusFound)
			}))
			redirects := 0
			for _, target = range urls {
				if !leavesSite(target) {
					continue
				}
				redirects++
				_, err := fake.fetcher().Fetch(t.Context(), "http://start.test/", rules(), 1<<20)
				if f := media.FailureOf(err); f == nil || f.Code != media.URLForbidden {
					t.Errorf("%.80q: got %.200v, want %s", target, err, media.URLForbidden)
				}
			}
			if got, want := fake.dials(), slices.Repeat([]string{otherV4 + ":80"}, redirects); !slices.Equal(got, want) {
				t.Errorf("%v was dialled, want only the site that redirects", got)
			}
		})
	}
}

// leavesSite reports whether a redirect to target fits into a header and does not stay on the site.
func leavesSite(target string) bool {
	if strings.ContainsFunc(target, unicode.IsControl) || len(target) > 50_000 {
		return false
	}
	u, err := url.Parse(strings.TrimSpace(target))
	return err != nil || u.Scheme != "" || u.Host != ""
}

func testHostileURLsEveryHopIsChecked(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, last := range []string{
			"http://127.0.0.1/", "//127.0.0.1/", "http://public.test:22/", "http://user@public.test/",
			"http://several.test/",
			"file:///etc/passwd", "https://[::ffff:169.254.169.254]/",
		} {
			fake := hostileNet()
			hops := map[string]string{"/": "second", "/second": "//start.test/third", "/third": last}
			fake.site(t, "start.test", otherV4, "80", http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
				rw.Header().Set("Location", hops[req.URL.Path])
				rw.WriteHeader(status)
			}))
			fake.fails(t, "http://start.test/", media.URLForbidden)
			if got, want := fake.dials(), slices.Repeat([]string{otherV4 + ":80"}, 3); !slices.Equal(got, want) {
				t.Errorf("%d to %s: dialled %v, want %v", status, last, got, want)
			}
		}
	}
}
