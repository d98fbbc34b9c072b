package fetch_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/fetch"
	"vitrine.io/pkg/foundation/media"
)

const imageURL = "http://images.test/a.jpg"

// served returns a fakeNet in which handler serves images.test.
func served(t *testing.T, handler http.Handler) *fakeNet {
	t.Helper()
	fake := newFakeNet()
	fake.site(t, "images.test", publicV4, "80", handler)
	return fake
}

func TestFetch(t *testing.T) {
	t.Parallel()
	t.Run("body_has_digest", testFetchBodyHasDigest)
	t.Run("request_has_only_fixed_headers", testFetchRequestHasOnlyFixedHeaders)
	t.Run("status_is_classified", testFetchStatusIsClassified)
	t.Run("retry_after_is_limited", testFetchRetryAfterIsLimited)
	t.Run("body_is_limited", testFetchBodyIsLimited)
	t.Run("oversized_length_is_refused_unread", testFetchOversizedLengthIsRefusedUnread)
	t.Run("content_encoding_is_decoded_or_refused", testFetchContentEncodingIsDecodedOrRefused)
	t.Run("broken_connection_is_classified", testFetchBrokenConnectionIsClassified)
	t.Run("body_ends_at_announced_length", testFetchBodyEndsAtAnnouncedLength)
	t.Run("body_without_length_ends_with_connection", testFetchBodyWithoutLengthEndsWithConnection)
	t.Run("unresolved_name_is_dns_failed", testFetchUnresolvedNameIsDNSFailed)
	t.Run("tls_is_verified_with_roots", testFetchTLSIsVerifiedWithRoots)
	t.Run("cancellation_returns_context_error", testFetchCancellationReturnsContextError)
	t.Run("failure_does_not_contain_url", testFetchFailureDoesNotContainURL)
}

func testFetchBodyHasDigest(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 1000, 64 << 10, 1<<20 - 1, 1 << 20} {
		want := strings.Repeat("x", size)
		got, err := served(t, answer(http.StatusOK, want)).fetcher().Fetch(t.Context(), imageURL, rules(), 1<<20)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if string(got.Body) != want {
			t.Errorf("got %d bytes, want %d", len(got.Body), size)
		}
		if sum := sha256.Sum256([]byte(want)); got.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%d bytes: got the digest %s", size, got.SHA256)
		}
	}
}

func testFetchRequestHasOnlyFixedHeaders(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 2)
	fake := served(t, http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		seen <- req
		rw.Header().Set("Set-Cookie", "a=b; Domain=test")
		if req.URL.Path != "/end" {
			http.Redirect(rw, req, "/end", http.StatusFound)
		}
	}))
	if _, err := fake.fetcher().Fetch(t.Context(), imageURL+"?signature=secret#part", rules(), 100); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		req := <-seen
		want := http.Header{
			"User-Agent": {"Vitrine"}, "Accept": {"image/*,*/*;q=0.5"}, "Accept-Encoding": {"identity"}, "Connection": {"close"},
		}
		if fmt.Sprint(req.Header) != fmt.Sprint(want) || req.Host != "images.test" || req.Method != http.MethodGet {
			t.Errorf("got %s %s %v, want the headers %v", req.Method, req.Host, req.Header, want)
		}
	}
}

func TestFetchIgnoresProxyOfEnvironment(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://10.0.0.1:3128")
	t.Setenv("HTTPS_PROXY", "http://10.0.0.1:3128")
	if _, err := served(t, answer(http.StatusOK, "x")).fetcher().Fetch(t.Context(), imageURL, rules(), 100); err != nil {
		t.Fatal(err)
	}
}

func TestRedirect(t *testing.T) {
	t.Parallel()
	t.Run("number_is_limited", testRedirectNumberIsLimited)
	t.Run("loop_ends", testRedirectLoopEnds)
	t.Run("https_to_http_is_followed", testRedirectHTTPSToHTTPIsFollowed)
	t.Run("other_host_is_followed", testRedirectOtherHostIsFollowed)
}

func testRedirectNumberIsLimited(t *testing.T) {
	t.Parallel()
	fake := served(t, http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		if left, _ := strconv.Atoi(strings.TrimPrefix(req.URL.Path, "/")); left > 0 {
			http.Redirect(rw, req, "/"+strconv.Itoa(left-1), http.StatusFound)
		}
	}))
	for limit := range 4 {
		r := rules()
		r.MaxRedirects = limit
		if _, err := fake.fetcher().Fetch(t.Context(), fmt.Sprintf("http://images.test/%d", limit), r, 100); err != nil {
			t.Errorf("%d redirects of %d: %v", limit, limit, err)
		}
		got, err := fake.fetcher().Fetch(t.Context(), fmt.Sprintf("http://images.test/%d", limit+1), r, 100)
		failed(t, got.Body, err, media.TooManyRedirects)
	}
}

func testRedirectLoopEnds(t *testing.T) {
	t.Parallel()
	loops := map[string]map[string]string{
		"of one":           {"/a.jpg": "/a.jpg"},
		"of two":           {"/a.jpg": "/b.jpg", "/b.jpg": "http://images.test/a.jpg"},
		"that looks new":   {"/a.jpg": "?1"},
		"by way of others": {"/a.jpg": "http://other.test/", "/": "//images.test/a.jpg"},
	}
	for name, to := range loops {
		handler := http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			http.Redirect(rw, req, to[req.URL.Path], http.StatusTemporaryRedirect)
		})
		fake := served(t, handler)
		fake.site(t, "other.test", otherV4, "80", handler)
		fake.fails(t, imageURL, media.TooManyRedirects)
		if got, want := len(fake.dials()), rules().MaxRedirects+1; got != want {
			t.Errorf("loop %s: got %d requests, want %d", name, got, want)
		}
	}
}

func testRedirectHTTPSToHTTPIsFollowed(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]media.Code{"http://plain.test/": "", "http://10.0.0.1/": media.URLForbidden} {
		server := httptest.NewTLSServer(http.RedirectHandler(target, http.StatusMovedPermanently))
		t.Cleanup(server.Close)
		fake := newFakeNet()
		fake.site(t, "plain.test", otherV4, "80", answer(http.StatusOK, "content"))
		fake.names["example.com"] = []string{publicV4}
		fake.servers[publicV4+":443"] = server.Listener.Addr().String()
		network := fake.network()
		network.Roots = x509.NewCertPool()
		network.Roots.AddCert(server.Certificate())
		got, err := newFetcher(network, 1024).Fetch(t.Context(), "https://example.com/", rules(), 100)
		if want != "" {
			failed(t, got.Body, err, want)
		} else if err != nil || string(got.Body) != "content" {
			t.Errorf("got %q, %v", got.Body, err)
		}
	}
}

func testRedirectOtherHostIsFollowed(t *testing.T) {
	t.Parallel()
	fake := served(t, http.RedirectHandler("http://other.test:443/x", http.StatusMovedPermanently))
	fake.site(t, "other.test", otherV4, "443", answer(http.StatusOK, "content"))
	got, err := fake.fetcher().Fetch(t.Context(), imageURL, rules(), 100)
	if err != nil || string(got.Body) != "content" {
		t.Errorf("got %q, %v", got.Body, err)
	}
}

func testFetchStatusIsClassified(t *testing.T) {
	t.Parallel()
	cases := map[int]media.Code{
		201: media.HTTPStatus, 204: media.HTTPStatus, 206: media.HTTPStatus, 300: media.HTTPStatus,
		304: media.HTTPStatus,
		400: media.HTTPStatus, 401: media.HTTPStatus, 402: media.HTTPStatus, 403: media.HTTPStatus,
		404: media.HTTPStatus, 405: media.HTTPStatus, 406: media.HTTPStatus, 407: media.HTTPStatus,
		409: media.HTTPStatus, 410: media.HTTPStatus, 416: media.HTTPStatus, 418: media.HTTPStatus,
		451: media.HTTPStatus, 499: media.HTTPStatus,
		408: media.SourceUnavailable, 425: media.SourceUnavailable, 429: media.SourceUnavailable,
		500: media.SourceUnavailable, 501: media.SourceUnavailable, 502: media.SourceUnavailable,
		503: media.SourceUnavailable, 504: media.SourceUnavailable, 521: media.SourceUnavailable,
		599: media.SourceUnavailable,
	}
	class := map[media.Code]media.Class{
		media.HTTPStatus: media.Permanent, media.SourceUnavailable: media.Transient,
	}
	for status, want := range cases {
		f := served(t, answer(status, "")).fails(t, imageURL, want)
		if got := "the source answered " + strconv.Itoa(status); f.Detail != got {
			t.Errorf("got %q, want %q", f.Detail, got)
		}
		if got := f.Code.Class(); got != class[want] {
			t.Errorf("%d has class %d, want %d", status, got, class[want])
		}
	}
}

func testFetchRetryAfterIsLimited(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cases := map[string]time.Duration{
		"":                               0,
		"0":                              0,
		"7":                              7 * time.Second,
		"-7":                             0,
		"soon":                           0,
		"1.5":                            0,
		"3600":                           time.Hour,
		"3601":                           time.Hour,
		"18446744073709551615":           time.Hour,
		"99999999999999999999":           time.Hour,
		strings.Repeat("9", 5000):        time.Hour,
		"-99999999999999999999":          0,
		"+7":                             0,
		"7, 8":                           0,
		"0x10":                           0,
		"1e3":                            0,
		"Fri Jan  2 03:04:45 2026":       40 * time.Second,
		"Thu, 01 Jan 1970 00:00:00 GMT":  0,
		"Fri, 31 Dec 9999 23:59:59 GMT":  time.Hour,
		"Fri, 02 Jan 2026 03:05:05 GMT":  time.Minute,
		"Fri, 02 Jan 2026 03:03:05 GMT":  0,
		"Sat, 02 Jan 2126 03:04:05 GMT":  time.Hour,
		"Friday, 02-Jan-26 03:04:35 GMT": 30 * time.Second,
	}
	for header, want := range cases {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			fake := served(t, answer(status, "", "Retry-After", header))
			clock := func() time.Time { return now }
			f := fetch.New(config(), bounds(), fake.network(), clock, prometheus.NewRegistry(), zap.NewNop())
			got, err := f.Fetch(t.Context(), imageURL, rules(), 100)
			if failure := failed(t, got.Body, err, media.SourceUnavailable); failure.RetryAfter != want {
				t.Errorf("%d, %.40q: got %v, want %v", status, header, failure.RetryAfter, want)
			}
		}
	}
}

func testFetchBodyIsLimited(t *testing.T) {
	t.Parallel()
	chunked := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		for range 101 {
			_, _ = rw.Write([]byte("x"))
			_ = http.NewResponseController(rw).Flush()
		}
	})
	endless := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := rw.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	cases := map[string]http.Handler{
		"announced":    answer(http.StatusOK, strings.Repeat("x", 101)),
		"in_chunks":    chunked,
		"without_end":  endless,
		"gzip_bomb":    answer(http.StatusOK, zipped(strings.Repeat("x", 101)), "Content-Encoding", "gzip"),
		"large_bomb":   answer(http.StatusOK, zipped(strings.Repeat("\x00", 4<<20)), "Content-Encoding", "gzip"),
		"gzip_padding": answer(http.StatusOK, strings.Repeat(zipped(""), 5), "Content-Encoding", "gzip"),
	}
	for name, handler := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := served(t, handler).fetcher().Fetch(t.Context(), imageURL, rules(), 100)
			f := failed(t, got.Body, err, media.TooLarge)
			if want := "the source has more than 100 bytes"; f.Detail != want {
				t.Errorf("got %q, want %q", f.Detail, want)
			}
		})
	}
}

func testFetchOversizedLengthIsRefusedUnread(t *testing.T) {
	t.Parallel()
	fake := newFakeNet()
	fake.names["images.test"] = []string{publicV4}
	fake.dial = script("HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n") // then nothing
	fake.fails(t, imageURL, media.TooLarge)
}

func testFetchContentEncodingIsDecodedOrRefused(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		encoding, body string
		want           media.Code // "" means success
	}{
		"gzip":                     {"gzip", zipped("content"), ""},
		"gzip_with_other_spelling": {" X-GZIP ", zipped("content"), ""},
		"identity":                 {"identity", "content", ""},
		"brotli":                   {"br", "content", media.UnsupportedFormat},
		"gzip_twice":               {"gzip, gzip", zipped(zipped("content")), media.UnsupportedFormat},
		"not_gzip":                 {"gzip", strings.Repeat("content", 10), media.Corrupt},
		"damaged_gzip":             {"gzip", zipped("content")[:len(zipped("content"))-8] + "checksum", media.Corrupt},
		"truncated_gzip":           {"gzip", zipped("content")[:20], media.Incomplete},
		"empty_gzip":               {"gzip", "", media.Incomplete},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := served(t, answer(http.StatusOK, c.body, "Content-Encoding", c.encoding))
			if c.want != "" {
				fake.fails(t, imageURL, c.want)
				return
			}
			got, err := fake.fetcher().Fetch(t.Context(), imageURL, rules(), 100)
			if err != nil || string(got.Body) != "content" {
				t.Fatalf("got %q, %v", got.Body, err)
			}
			if sum := sha256.Sum256([]byte("content")); got.SHA256 != hex.EncodeToString(sum[:]) {
				t.Error("the digest is not that of the decoded body")
			}
		})
	}
}

// zipped returns text compressed with gzip.
func zipped(text string) string {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return out.String()
}

// script answers every connection with text, and leaves it open until the client closes it.
func script(text string) func(string) (net.Conn, error) {
	return func(string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			request := make([]byte, 4<<10)
			if _, err := server.Read(request); err != nil {
				return
			}
			_, _ = server.Write([]byte(text))
			_, _ = server.Read(request) // until the client closes
		}()
		return client, nil
	}
}

// hangUp answers every connection with text, and closes it.
func hangUp(text string) func(string) (net.Conn, error) {
	return func(string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			if _, err := server.Read(make([]byte, 4<<10)); err == nil {
				_, _ = server.Write([]byte(text))
			}
		}()
		return client, nil
	}
}

func testFetchBrokenConnectionIsClassified(t *testing.T) {
	t.Parallel()
	const ok, found = "HTTP/1.1 200 OK\r\n", "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n"
	fail := func(err error) func(string) (net.Conn, error) {
		return func(string) (net.Conn, error) { return nil, err }
	}
	cases := map[string]struct {
		dial func(string) (net.Conn, error)
		want media.Code
	}{
		"refused":              {fail(errors.New("refused by 10.0.0.1")), media.ConnectFailed},
		"timed_out":            {fail(context.DeadlineExceeded), media.Timeout},
		"closed_at_once":       {hangUp(""), media.ConnectFailed},
		"no_http":              {hangUp("220 smtp.example.com ESMTP\r\n"), media.ConnectFailed},
		"endless_headers":      {hangUp(ok + "X: " + strings.Repeat("x", 70<<10) + "\r\n\r\n"), media.ConnectFailed},
		"short_body":           {hangUp(ok + "Content-Length: 10\r\n\r\n12345"), media.Incomplete},
		"short_chunks":         {hangUp(ok + "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"), media.Incomplete},
		"endless_hints":        {hangUp(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 5000)), media.ConnectFailed},
		"two_lengths":          {hangUp(ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345"), media.ConnectFailed},
		"no_length":            {hangUp(ok + "Content-Length: -5\r\n\r\n12345"), media.ConnectFailed},
		"endless_length":       {hangUp(ok + "Content-Length: 99999999999999999999\r\n\r\n12345"), media.ConnectFailed},
		"bad_chunks":           {hangUp(ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"), media.ConnectFailed},
		"redirect_to_nowhere":  {hangUp(found + "\r\n"), media.HTTPStatus},
		"redirect_to_nonsense": {hangUp(found + "Location: http://[\r\n\r\n"), media.URLForbidden},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNet()
			fake.names["images.test"] = []string{publicV4}
			fake.dial = c.dial
			fake.fails(t, imageURL, c.want)
		})
	}
}

// Bytes after the announced length must be ignored: they would be the answer to a second request, which was not sent.
func testFetchBodyEndsAtAnnouncedLength(t *testing.T) {
	t.Parallel()
	fake := newFakeNet()
	fake.names["images.test"] = []string{publicV4}
	fake.dial = hangUp("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ncontent and " + strings.Repeat("more", 1000))
	got, err := fake.fetcher().Fetch(t.Context(), imageURL, rules(), 7)
	if err != nil || string(got.Body) != "content" || cap(got.Body) > 8 {
		t.Errorf("got %q in %d bytes, %v", got.Body, cap(got.Body), err)
	}
}

func testFetchBodyWithoutLengthEndsWithConnection(t *testing.T) {
	t.Parallel()
	fake := newFakeNet()
	fake.names["images.test"] = []string{publicV4}
	fake.dial = hangUp("HTTP/1.0 200 OK\r\n\r\ncontent")
	if got, err := fake.fetcher().Fetch(t.Context(), imageURL, rules(), 7); err != nil || string(got.Body) != "content" {
		t.Errorf("got %q, %v", got.Body, err)
	}
}

func testFetchUnresolvedNameIsDNSFailed(t *testing.T) {
	t.Parallel()
	fake := newFakeNet()
	fake.names["empty.test"] = nil
	fake.fails(t, "http://nowhere.test/", media.DNSFailed)
	fake.fails(t, "http://empty.test/", media.DNSFailed)
}

func testFetchTLSIsVerifiedWithRoots(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(answer(http.StatusOK, "content"))
	server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	server.StartTLS()
	t.Cleanup(server.Close)
	plain := httptest.NewServer(answer(http.StatusOK, "content"))
	t.Cleanup(plain.Close)
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate()) // for example.com
	cases := map[string]struct {
		host, listener string
		roots          *x509.CertPool
		want           media.Code
	}{
		"trusted":     {"example.com", server.Listener.Addr().String(), trusted, ""},
		"other_host":  {"images.test", server.Listener.Addr().String(), trusted, media.TLSFailed},
		"other_roots": {"example.com", server.Listener.Addr().String(), x509.NewCertPool(), media.TLSFailed},
		"no_tls":      {"example.com", plain.Listener.Addr().String(), trusted, media.TLSFailed},
		"no_server":   {"example.com", "", trusted, media.ConnectFailed},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNet()
			fake.names[c.host] = []string{publicV4}
			fake.servers[publicV4+":443"] = c.listener
			network := fake.network()
			network.Roots = c.roots
			f := fetch.New(config(), bounds(), network, time.Now, prometheus.NewRegistry(), zap.NewNop())
			got, err := f.Fetch(t.Context(), "https://"+c.host+"/", rules(), 100)
			if c.want != "" {
				failed(t, got.Body, err, c.want)
			} else if err != nil || string(got.Body) != "content" {
				t.Errorf("got %q, %v", got.Body, err)
			}
		})
	}
}

func testFetchCancellationReturnsContextError(t *testing.T) {
	t.Parallel()
	started := make(chan struct{})
	fake := served(t, http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		_, _ = rw.Write([]byte("some"))
		_ = http.NewResponseController(rw).Flush()
		close(started)
		<-req.Context().Done()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	got, err := fake.fetcher().Fetch(ctx, imageURL, rules(), 100)
	if err != context.Canceled || got.Body != nil { //nolint:errorlint // it has to be unchanged
		t.Errorf("got %q, %v, want context.Canceled unchanged", got.Body, err)
	}
}

func testFetchFailureDoesNotContainURL(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"http://nowhere.test/?sig=s3cret", "http://10.0.0.1/?sig=s3cret", "http://s3cret:s3cret@x.test/",
		"http://%zz/s3cret", "ftp://x/s3cret",
	} {
		_, err := newFakeNet().fetcher().Fetch(t.Context(), url, rules(), 100)
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("got %v", err)
		}
	}
	fake := newFakeNet()
	fake.names["images.test"], fake.dial = []string{publicV4}, hangUp("")
	_, err := fake.fetcher().Fetch(t.Context(), imageURL+"?s3cret", rules(), 100)
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v", err)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	fake := served(t, answer(http.StatusOK, "content"))
	reg := prometheus.NewRegistry()
	f := fetch.New(config(), bounds(), fake.network(), time.Now, reg, zap.NewNop())
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx context.Context
		url string
	}{{t.Context(), imageURL}, {t.Context(), imageURL}, {t.Context(), "http://10.0.0.1/"}, {ended, imageURL}} {
		_, _ = f.Fetch(c.ctx, c.url, rules(), 100)
	}
	want := `
# HELP vitrine_fetch_bytes_total Bytes of downloaded sources, after decoding of a content encoding.
# TYPE vitrine_fetch_bytes_total counter
vitrine_fetch_bytes_total 14
# HELP vitrine_fetch_in_flight Downloads in progress.
# TYPE vitrine_fetch_in_flight gauge
vitrine_fetch_in_flight 0
# HELP vitrine_fetch_requests_total Downloads by result: ok, the error code of the image, or stopped by the caller.
# TYPE vitrine_fetch_requests_total counter
vitrine_fetch_requests_total{code="ok"} 2
vitrine_fetch_requests_total{code="stopped"} 1
vitrine_fetch_requests_total{code="url_forbidden"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want),
		"vitrine_fetch_bytes_total", "vitrine_fetch_in_flight", "vitrine_fetch_requests_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "vitrine_fetch_duration_seconds"); err != nil || n != 1 {
		t.Errorf("got %d duration histograms (%v), want 1", n, err)
	}
}

func TestInternet(t *testing.T) {
	t.Parallel()
	network := fetch.Internet("")
	server := httptest.NewServer(answer(http.StatusOK, ""))
	defer server.Close()
	conn, err := network.Dial(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	got, err := network.Resolver.LookupNetIP(t.Context(), "ip", "127.0.0.1")
	if want := netip.MustParseAddr("127.0.0.1"); err != nil || len(got) != 1 || got[0].Unmap() != want {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
	if network.Roots != nil {
		t.Error("got roots, want nil: the system's")
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for _, maxInFlight := range []int64{0, 1 << 20, 1 << 40} {
		c := config()
		c.MaxInFlight, c.Resolver, c.ControlNames = maxInFlight, "[::1]:53", []string{"kubernetes.default.svc", "example.com."}
		if wrong := c.Validate(); wrong != nil {
			t.Errorf("got %v for a valid configuration", wrong)
		}
	}
	for _, agent := range []string{"", "a\r\nb", "ü"} {
		c := fetch.Config{
			UserAgent: agent, MinRate: -1, RateWindow: 0, MaxInFlight: 1<<20 - 1,
			Resolver: "10.0.0.10", ControlNames: []string{"a b"},
		}
		var got []string
		for _, f := range c.Validate() {
			got = append(got, f.Path)
		}
		want := "USER_AGENT MIN_RATE RATE_WINDOW SLOT_WAIT MAX_BYTES_IN_FLIGHT RESOLVER CONTROL_NAMES"
		if strings.Join(got, " ") != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}
