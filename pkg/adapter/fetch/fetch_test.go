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

const picture = "http://pictures.test/a.jpg"

// served returns a world in which handler serves pictures.test.
func served(t *testing.T, handler http.Handler) *world {
	t.Helper()
	w := newWorld()
	w.site(t, "pictures.test", publicV4, "80", handler)
	return w
}

func TestABodyComesWithItsDigest(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 1000, 64 << 10, 1<<20 - 1, 1 << 20} {
		want := strings.Repeat("x", size)
		got, err := served(t, answer(http.StatusOK, want)).fetcher().Fetch(t.Context(), picture, rules(), 1<<20)
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

func TestTheRequestTellsNothingOfUs(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 2)
	w := served(t, http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		seen <- req
		rw.Header().Set("Set-Cookie", "a=b; Domain=test")
		if req.URL.Path != "/end" {
			http.Redirect(rw, req, "/end", http.StatusFound)
		}
	}))
	if _, err := w.fetcher().Fetch(t.Context(), picture+"?signature=secret#part", rules(), 100); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		req := <-seen
		want := http.Header{
			"User-Agent": {"Vitrine"}, "Accept": {"image/*,*/*;q=0.5"}, "Accept-Encoding": {"identity"}, "Connection": {"close"},
		}
		if fmt.Sprint(req.Header) != fmt.Sprint(want) || req.Host != "pictures.test" || req.Method != http.MethodGet {
			t.Errorf("got %s %s %v, want the headers %v", req.Method, req.Host, req.Header, want)
		}
	}
}

func TestAProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://10.0.0.1:3128")
	t.Setenv("HTTPS_PROXY", "http://10.0.0.1:3128")
	if _, err := served(t, answer(http.StatusOK, "x")).fetcher().Fetch(t.Context(), picture, rules(), 100); err != nil {
		t.Fatal(err)
	}
}

func TestRedirectsAreFollowedOnlySoFar(t *testing.T) {
	t.Parallel()
	w := served(t, http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		if left, _ := strconv.Atoi(strings.TrimPrefix(req.URL.Path, "/")); left > 0 {
			http.Redirect(rw, req, "/"+strconv.Itoa(left-1), http.StatusFound)
		}
	}))
	for most := range 4 {
		r := rules()
		r.MaxRedirects = most
		if _, err := w.fetcher().Fetch(t.Context(), fmt.Sprintf("http://pictures.test/%d", most), r, 100); err != nil {
			t.Errorf("%d redirects of %d: %v", most, most, err)
		}
		got, err := w.fetcher().Fetch(t.Context(), fmt.Sprintf("http://pictures.test/%d", most+1), r, 100)
		failed(t, got.Body, err, media.TooManyRedirects)
	}
}

func TestALoopOfRedirectsEnds(t *testing.T) {
	t.Parallel()
	loops := map[string]map[string]string{
		"of one":           {"/a.jpg": "/a.jpg"},
		"of two":           {"/a.jpg": "/b.jpg", "/b.jpg": "http://pictures.test/a.jpg"},
		"that looks new":   {"/a.jpg": "?1"},
		"by way of others": {"/a.jpg": "http://other.test/", "/": "//pictures.test/a.jpg"},
	}
	for name, to := range loops {
		handler := http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			http.Redirect(rw, req, to[req.URL.Path], http.StatusTemporaryRedirect)
		})
		w := served(t, handler)
		w.site(t, "other.test", otherV4, "80", handler)
		w.fails(t, picture, media.TooManyRedirects)
		if got, want := len(w.dials()), rules().MaxRedirects+1; got != want {
			t.Errorf("a loop %s: %d requests, want %d", name, got, want)
		}
	}
}

func TestARedirectMayLeadFromTLSToNone(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]media.Code{"http://plain.test/": "", "http://10.0.0.1/": media.URLForbidden} {
		server := httptest.NewTLSServer(http.RedirectHandler(target, http.StatusMovedPermanently))
		t.Cleanup(server.Close)
		w := newWorld()
		w.site(t, "plain.test", otherV4, "80", answer(http.StatusOK, "picture"))
		w.names["example.com"] = []string{publicV4}
		w.servers[publicV4+":443"] = server.Listener.Addr().String()
		network := w.network()
		network.Roots = x509.NewCertPool()
		network.Roots.AddCert(server.Certificate())
		got, err := newFetcher(network, 1024).Fetch(t.Context(), "https://example.com/", rules(), 100)
		if want != "" {
			failed(t, got.Body, err, want)
		} else if err != nil || string(got.Body) != "picture" {
			t.Errorf("got %q, %v", got.Body, err)
		}
	}
}

func TestARedirectGoesToAnotherHost(t *testing.T) {
	t.Parallel()
	w := served(t, http.RedirectHandler("http://other.test:443/x", http.StatusMovedPermanently))
	w.site(t, "other.test", otherV4, "443", answer(http.StatusOK, "picture"))
	got, err := w.fetcher().Fetch(t.Context(), picture, rules(), 100)
	if err != nil || string(got.Body) != "picture" {
		t.Errorf("got %q, %v", got.Body, err)
	}
}

func TestStatusesSayWhetherToComeAgain(t *testing.T) {
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
		f := served(t, answer(status, "")).fails(t, picture, want)
		if got := "the source answered " + strconv.Itoa(status); f.Detail != got {
			t.Errorf("got %q, want %q", f.Detail, got)
		}
		if got := f.Code.Class(); got != class[want] {
			t.Errorf("%d has class %d, want %d", status, got, class[want])
		}
	}
}

func TestRetryAfterIsHeardWithinReason(t *testing.T) {
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
			w := served(t, answer(status, "", "Retry-After", header))
			f := fetch.New(config(), w.network(), func() time.Time { return now }, prometheus.NewRegistry(), zap.NewNop())
			got, err := f.Fetch(t.Context(), picture, rules(), 100)
			if failure := failed(t, got.Body, err, media.SourceUnavailable); failure.RetryAfter != want {
				t.Errorf("%d, %.40q: got %v, want %v", status, header, failure.RetryAfter, want)
			}
		}
	}
}

func TestABodyHasAHardLimit(t *testing.T) {
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
		"in chunks":    chunked,
		"without end":  endless,
		"gzip bomb":    answer(http.StatusOK, zipped(strings.Repeat("x", 101)), "Content-Encoding", "gzip"),
		"large bomb":   answer(http.StatusOK, zipped(strings.Repeat("\x00", 4<<20)), "Content-Encoding", "gzip"),
		"gzip padding": answer(http.StatusOK, strings.Repeat(zipped(""), 5), "Content-Encoding", "gzip"),
	}
	for name, handler := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := served(t, handler).fetcher().Fetch(t.Context(), picture, rules(), 100)
			f := failed(t, got.Body, err, media.TooLarge)
			if want := "the source has more than 100 bytes"; f.Detail != want {
				t.Errorf("got %q, want %q", f.Detail, want)
			}
		})
	}
}

func TestAHugeAnnouncementIsRefusedUnread(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.names["pictures.test"] = []string{publicV4}
	w.dial = script("HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n") // and then nothing, forever
	w.fails(t, picture, media.TooLarge)
}

func TestWhatWasNotAskedForIsUndoneOrRefused(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		encoding, body string
		want           media.Code // "": it is fetched
	}{
		"gzip":           {"gzip", zipped("picture"), ""},
		"gzip, loudly":   {" X-GZIP ", zipped("picture"), ""},
		"identity":       {"identity", "picture", ""},
		"brotli":         {"br", "picture", media.UnsupportedFormat},
		"twice":          {"gzip, gzip", zipped(zipped("picture")), media.UnsupportedFormat},
		"not gzip":       {"gzip", strings.Repeat("picture", 10), media.Corrupt},
		"damaged gzip":   {"gzip", zipped("picture")[:len(zipped("picture"))-8] + "checksum", media.Corrupt},
		"truncated gzip": {"gzip", zipped("picture")[:20], media.Incomplete},
		"no gzip at all": {"gzip", "", media.Incomplete},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := served(t, answer(http.StatusOK, c.body, "Content-Encoding", c.encoding))
			if c.want != "" {
				w.fails(t, picture, c.want)
				return
			}
			got, err := w.fetcher().Fetch(t.Context(), picture, rules(), 100)
			if err != nil || string(got.Body) != "picture" {
				t.Fatalf("got %q, %v", got.Body, err)
			}
			if sum := sha256.Sum256([]byte("picture")); got.SHA256 != hex.EncodeToString(sum[:]) {
				t.Error("the digest is not of the decoded body")
			}
		})
	}
}

func zipped(text string) string {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return out.String()
}

// script answers every connection with text, and leaves it open.
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

// hangUp is script, and then the end of the connection.
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

func TestBrokenConnectionsAreTold(t *testing.T) {
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
		"timed out":            {fail(context.DeadlineExceeded), media.Timeout},
		"closed at once":       {hangUp(""), media.ConnectFailed},
		"no http":              {hangUp("220 smtp.example.com ESMTP\r\n"), media.ConnectFailed},
		"endless headers":      {hangUp(ok + "X: " + strings.Repeat("x", 70<<10) + "\r\n\r\n"), media.ConnectFailed},
		"short body":           {hangUp(ok + "Content-Length: 10\r\n\r\n12345"), media.Incomplete},
		"short chunks":         {hangUp(ok + "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"), media.Incomplete},
		"endless hints":        {hangUp(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 5000)), media.ConnectFailed},
		"two lengths":          {hangUp(ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345"), media.ConnectFailed},
		"no length":            {hangUp(ok + "Content-Length: -5\r\n\r\n12345"), media.ConnectFailed},
		"endless length":       {hangUp(ok + "Content-Length: 99999999999999999999\r\n\r\n12345"), media.ConnectFailed},
		"bad chunks":           {hangUp(ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"), media.ConnectFailed},
		"redirect to nowhere":  {hangUp(found + "\r\n"), media.HTTPStatus},
		"redirect to nonsense": {hangUp(found + "Location: http://[\r\n\r\n"), media.URLForbidden},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			w.names["pictures.test"] = []string{publicV4}
			w.dial = c.dial
			w.fails(t, picture, c.want)
		})
	}
}

// What comes after the announced length is another answer, to a question that nobody asked.
func TestABodyEndsWhereItWasAnnounced(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.names["pictures.test"] = []string{publicV4}
	w.dial = hangUp("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\npicture and " + strings.Repeat("more", 1000))
	got, err := w.fetcher().Fetch(t.Context(), picture, rules(), 7)
	if err != nil || string(got.Body) != "picture" || cap(got.Body) > 8 {
		t.Errorf("got %q in %d bytes, %v", got.Body, cap(got.Body), err)
	}
}

func TestABodyMayEndWithItsConnection(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.names["pictures.test"] = []string{publicV4}
	w.dial = hangUp("HTTP/1.0 200 OK\r\n\r\npicture")
	if got, err := w.fetcher().Fetch(t.Context(), picture, rules(), 7); err != nil || string(got.Body) != "picture" {
		t.Errorf("got %q, %v", got.Body, err)
	}
}

func TestNamesThatDoNotResolveAreTold(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.names["empty.test"] = nil
	w.fails(t, "http://nowhere.test/", media.DNSFailed)
	w.fails(t, "http://empty.test/", media.DNSFailed)
}

func TestTLSIsTrustedOnlyByTheRoots(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(answer(http.StatusOK, "picture"))
	server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	server.StartTLS()
	t.Cleanup(server.Close)
	plain := httptest.NewServer(answer(http.StatusOK, "picture"))
	t.Cleanup(plain.Close)
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate()) // for example.com
	cases := map[string]struct {
		host, listener string
		roots          *x509.CertPool
		want           media.Code
	}{
		"trusted":     {"example.com", server.Listener.Addr().String(), trusted, ""},
		"other host":  {"pictures.test", server.Listener.Addr().String(), trusted, media.TLSFailed},
		"other roots": {"example.com", server.Listener.Addr().String(), x509.NewCertPool(), media.TLSFailed},
		"no TLS":      {"example.com", plain.Listener.Addr().String(), trusted, media.TLSFailed},
		"nobody":      {"example.com", "", trusted, media.ConnectFailed},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			w.names[c.host] = []string{publicV4}
			w.servers[publicV4+":443"] = c.listener
			network := w.network()
			network.Roots = c.roots
			f := fetch.New(config(), network, time.Now, prometheus.NewRegistry(), zap.NewNop())
			got, err := f.Fetch(t.Context(), "https://"+c.host+"/", rules(), 100)
			if c.want != "" {
				failed(t, got.Body, err, c.want)
			} else if err != nil || string(got.Body) != "picture" {
				t.Errorf("got %q, %v", got.Body, err)
			}
		})
	}
}

func TestTheCallersEndIsNoFailure(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	w := served(t, http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		_, _ = rw.Write([]byte("some"))
		_ = http.NewResponseController(rw).Flush()
		close(begun)
		<-req.Context().Done()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	got, err := w.fetcher().Fetch(ctx, picture, rules(), 100)
	if err != context.Canceled || got.Body != nil { //nolint:errorlint // exactly as it is
		t.Errorf("got %q, %v, want context.Canceled as it is", got.Body, err)
	}
}

func TestAFailureKeepsTheURLOutOfItsText(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"http://nowhere.test/?sig=s3cret", "http://10.0.0.1/?sig=s3cret", "http://s3cret:s3cret@x.test/",
		"http://%zz/s3cret", "ftp://x/s3cret",
	} {
		_, err := newWorld().fetcher().Fetch(t.Context(), url, rules(), 100)
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("got %v", err)
		}
	}
	w := newWorld()
	w.names["pictures.test"], w.dial = []string{publicV4}, hangUp("")
	_, err := w.fetcher().Fetch(t.Context(), picture+"?s3cret", rules(), 100)
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v", err)
	}
}

func TestDownloadsAreCounted(t *testing.T) {
	t.Parallel()
	w := served(t, answer(http.StatusOK, "picture"))
	reg := prometheus.NewRegistry()
	f := fetch.New(config(), w.network(), time.Now, reg, zap.NewNop())
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx context.Context
		url string
	}{{t.Context(), picture}, {t.Context(), picture}, {t.Context(), "http://10.0.0.1/"}, {ended, picture}} {
		_, _ = f.Fetch(c.ctx, c.url, rules(), 100)
	}
	want := `
# HELP vitrine_fetch_bytes_total Bytes of sources downloaded, decoded from any content encoding.
# TYPE vitrine_fetch_bytes_total counter
vitrine_fetch_bytes_total 14
# HELP vitrine_fetch_in_flight Downloads going on.
# TYPE vitrine_fetch_in_flight gauge
vitrine_fetch_in_flight 0
# HELP vitrine_fetch_requests_total Downloads by how they ended: ok, the picture's error code, or stopped by the caller.
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

func TestTheInternetIsTheSystems(t *testing.T) {
	t.Parallel()
	network := fetch.Internet()
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
		t.Error("the roots are not the system's")
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	for _, most := range []int64{0, 1 << 20, 1 << 40} {
		c := config()
		c.MaxInFlight = most
		if wrong := c.Validate(); wrong != nil {
			t.Errorf("got %v of a good one", wrong)
		}
	}
	for _, agent := range []string{"", "a\r\nb", "ü"} {
		c := fetch.Config{UserAgent: agent, MinRate: -1, RateWindow: 0, MaxInFlight: 1<<20 - 1}
		var got []string
		for _, f := range c.Validate() {
			got = append(got, f.Path)
		}
		if want := "USER_AGENT MIN_RATE RATE_WINDOW MAX_BYTES_IN_FLIGHT"; strings.Join(got, " ") != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}
