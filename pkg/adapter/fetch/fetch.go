package fetch

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// maxHeader bounds the headers of one answer, in bytes. Browsers take 256 KiB at most, pictures come with one or two.
const maxHeader = 64 << 10

// Fetcher downloads sources. It may be used concurrently.
type Fetcher struct {
	config  Config
	network Network
	now     func() time.Time
	budget  *budget
	metrics *metrics
	log     *zap.Logger
}

var _ worker.Source = (*Fetcher)(nil)

// New returns a Fetcher that reaches the outside by network. A MaxInFlight of 0 is that of one picture.
func New(config Config, network Network, now func() time.Time, reg prometheus.Registerer, log *zap.Logger) *Fetcher {
	m := newMetrics(reg)
	return &Fetcher{
		config: config, network: network, now: now, metrics: m, log: log,
		budget: newBudget(config.For(1).MaxInFlight, now, m),
	}
}

// Fetch downloads rawURL under rules, at most maxBytes of it. Its errors are *media.Failure, or ctx's own. It first waits
// for memory: only then is anybody spoken to, and only then do the limits of time begin.
func (f *Fetcher) Fetch(
	ctx context.Context, rawURL string, rules pipeline.Fetch, maxBytes int64,
) (worker.Download, error) {
	room, err := f.budget.reserve(ctx, maxBytes)
	if err != nil {
		f.metrics.count(err)
		return worker.Download{}, err
	}
	handedOver := false
	defer func() {
		if !handedOver { // whatever happened, a panic included
			room.release()
		}
	}()
	began := f.now()
	f.metrics.inFlight.Inc()
	defer f.metrics.inFlight.Dec()

	own, cancel := context.WithTimeoutCause(ctx, rules.Timeout.D(), tooSlow("the download took longer than allowed"))
	defer cancel()
	own, abort := context.WithCancelCause(own)
	defer abort(nil)
	got, err := f.download(own, abort, rawURL, rules, limit{maxBytes, room})
	if err != nil {
		got, err = worker.Download{}, classify(ctx, own, err)
	} else {
		got.Release, handedOver = room.release, true
	}
	f.metrics.ended(f.now().Sub(began), len(got.Body), err)
	return got, err
}

// limit is how large a body may be, and the memory that is reserved for it.
type limit struct {
	bytes int64
	room  *reservation
}

func (f *Fetcher) download(
	ctx context.Context, abort func(error), rawURL string, rules pipeline.Fetch, most limit,
) (worker.Download, error) {
	req, err := f.request(ctx, rawURL)
	if err != nil {
		return worker.Download{}, err
	}
	resp, err := f.client(ctx, rules).Do(req)
	if err != nil {
		return worker.Download{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return worker.Download{}, refused(resp, f.now())
	}
	return f.body(resp, most, abort)
}

func (f *Fetcher) request(ctx context.Context, rawURL string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, http.NoBody)
	if err != nil {
		return nil, forbidden("the URL is not valid", nil) // the cause repeats the URL, whose query may hold a signature
	}
	if err := checkForm(req.URL); err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", f.config.UserAgent)
	req.Header.Set("Accept", "image/*,*/*;q=0.5")
	req.Header.Set("Accept-Encoding", "identity") // a picture is compressed already
	return req, nil
}

// client returns the client of one download, so that every connection was opened under its rules and none outlives ctx:
// net/http detaches a dial from the request that wanted it, for the sake of a later one that never comes here.
func (f *Fetcher) client(ctx context.Context, rules pipeline.Fetch) *http.Client {
	c := connector{
		guard: newGuard(rules), network: f.network, timeout: rules.ConnectTimeout.D(), log: f.log,
	}
	return &http.Client{
		Transport: redirects{&http.Transport{
			Proxy: nil, // not the environment's: it would be asked to reach what the guard forbids
			DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
				return c.dial(ctx, address)
			},
			DialTLSContext: func(_ context.Context, _, address string) (net.Conn, error) {
				return c.dialTLS(ctx, address)
			},
			DisableKeepAlives:      true,
			ResponseHeaderTimeout:  rules.HeaderTimeout.D(),
			MaxResponseHeaderBytes: maxHeader,
		}},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > rules.MaxRedirects {
				return media.Fail(media.TooManyRedirects, "the source redirects more than "+
					strconv.Itoa(rules.MaxRedirects)+" times", nil)
			}
			req.Header.Del("Referer") // a signed URL must not be told to the next host
			return checkForm(req.URL)
		},
	}
}

// redirects is a transport that tells a redirect to what is no URL: http.Client's error for it looks like any other.
type redirects struct{ http.RoundTripper }

func (r redirects) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.RoundTripper.RoundTrip(req)
	if err != nil || resp.Header.Get("Location") == "" || resp.StatusCode/100 != 3 {
		return resp, err //nolint:wrapcheck // classified by the caller
	}
	if _, err := req.URL.Parse(resp.Header.Get("Location")); err != nil {
		resp.Body.Close()                                                          //nolint:errcheck // nobody has read of it
		return nil, forbidden("the source redirects to what is no valid URL", nil) // the cause would repeat it
	}
	return resp, nil
}

// checkForm checks what can be told from a URL without asking anyone. Addresses and ports are checked at the dial.
func checkForm(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return forbidden("only http and https URLs are fetched", nil)
	case u.User != nil:
		return forbidden("the URL must not hold a user name or password", nil)
	case u.Opaque != "" || u.Hostname() == "":
		return forbidden("the URL has no host", nil)
	default:
		return nil
	}
}
