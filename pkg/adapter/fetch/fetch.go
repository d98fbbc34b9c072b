package fetch

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/slots"
)

// maxHeader is the maximum size of the headers of one answer, in bytes. Images come with one or two KiB; browsers allow 256.
const maxHeader = 64 << 10

// Fetcher downloads sources. It is safe for concurrent use.
type Fetcher struct {
	config   Config
	guard    addressRules
	network  Network
	controls *controls
	limits   limits
	now      func() time.Time
	budget   *budget
	metrics  *metrics
	log      *zap.Logger
}

var (
	_ worker.Source = (*Fetcher)(nil)
	_ worker.Memory = (*Fetcher)(nil)
)

// New returns a Fetcher that uses network and reaches only addresses that the bounds allow. A MaxInFlight of 0 means the
// default for one concurrent image.
func New(
	config Config, bounds pipeline.Bounds, network Network, now func() time.Time, reg prometheus.Registerer, log *zap.Logger,
) *Fetcher {
	m := newMetrics(reg)
	return &Fetcher{
		config: config, network: network, now: now, metrics: m, log: log,
		guard:    addressRules{allowed: bounds.Networks(), ports: bounds.Ports()},
		limits:   limits{hosts: slots.New[string](), networks: slots.New[netip.Prefix](), wait: config.SlotWait},
		controls: &controls{resolver: network.Resolver, names: config.ControlNames, now: now, metrics: m, log: log},
		budget:   newBudget(config.For(1).MaxInFlight, now, m),
	}
}

// ShareHosts makes redirects use the host slots of hosts, by catalog.HostKey. It must be called before the first Fetch.
func (f *Fetcher) ShareHosts(hosts *slots.Slots[string]) *Fetcher {
	f.limits.hosts = hosts
	return f
}

// Reserve implements worker.Memory, with the budget of downloads.
func (f *Fetcher) Reserve(ctx context.Context, bytes int64) (release func(), err error) {
	memory, err := f.budget.reserve(ctx, bytes)
	if err != nil {
		return nil, err
	}
	return memory.release, nil
}

// Fetch downloads rawURL under rules. A body of more than maxBytes bytes is a failure. Errors are *media.Failure, or that
// of ctx. It waits for memory before it dials and before the time limits start.
func (f *Fetcher) Fetch(
	ctx context.Context, rawURL string, rules pipeline.Fetch, maxBytes int64,
) (worker.Download, error) {
	memory, err := f.budget.reserve(ctx, maxBytes)
	if err != nil {
		f.metrics.count(err)
		return worker.Download{}, err
	}
	handedOver := false
	defer func() {
		if !handedOver { // also after a panic
			memory.release()
		}
	}()
	start := f.now()
	f.metrics.inFlight.Inc()
	defer f.metrics.inFlight.Dec()

	downloadCtx, cancel := context.WithTimeoutCause(ctx, rules.Timeout.D(), tooSlow("the download took longer than allowed"))
	defer cancel()
	downloadCtx, abort := context.WithCancelCause(downloadCtx)
	defer abort(nil)
	download := func() (worker.Download, error) {
		got, err := f.download(downloadCtx, abort, rawURL, rules, bodyLimit{maxBytes, memory})
		if err == nil {
			return got, nil
		}
		return worker.Download{}, f.controls.blame(ctx, classify(ctx, downloadCtx, err))
	}
	got, err := download()
	if f.controls.answeredSince(err) { // an outage may have ended between the two lookups
		got, err = download()
	}
	if err == nil {
		got.Release, handedOver = memory.release, true
	}
	f.metrics.observe(f.now().Sub(start), len(got.Body), err)
	return got, err
}

// bodyLimit is the maximum size of a body, and the memory that is reserved for it.
type bodyLimit struct {
	bytes  int64
	memory *reservation
}

func (f *Fetcher) download(
	ctx context.Context, abort func(error), rawURL string, rules pipeline.Fetch, limit bodyLimit,
) (worker.Download, error) {
	req, err := f.request(ctx, rawURL)
	if err != nil {
		return worker.Download{}, err
	}
	h := &hops{limits: f.limits, held: map[string]bool{}}
	h.perHost = rules.PerHost
	defer h.leave()
	resp, err := f.client(ctx, rules, h).Do(req)
	if err != nil {
		return worker.Download{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return worker.Download{}, statusFailure(resp, f.now())
	}
	return f.body(resp, limit, abort)
}

func (f *Fetcher) request(ctx context.Context, rawURL string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, http.NoBody)
	if err != nil {
		return nil, forbidden("the URL is not valid", nil) // the cause contains the URL, whose query may contain a signature
	}
	if err := checkForm(req.URL); err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", f.config.UserAgent)
	req.Header.Set("Accept", "image/*,*/*;q=0.5")
	req.Header.Set("Accept-Encoding", "identity") // images are compressed already
	return req, nil
}

func (f *Fetcher) connector(rules pipeline.Fetch) connector {
	return connector{
		guard: f.guard, network: f.network, timeout: rules.ConnectTimeout.D(), now: f.now, log: f.log,
	}
}

// client returns the client of one download, so that every connection is opened under its rules and none outlives ctx. The
// dials use ctx instead of the request's context, because net/http detaches a dial from its request, for use by a later one.
func (f *Fetcher) client(ctx context.Context, rules pipeline.Fetch, h *hops) *http.Client {
	c := f.connector(rules)
	c.limits = h.limits
	return &http.Client{
		Transport: redirects{&http.Transport{
			Proxy: nil, // not that of the environment, because a proxy could reach forbidden addresses
			DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
				return c.dial(ctx, address, false)
			},
			DialTLSContext: func(_ context.Context, _, address string) (net.Conn, error) {
				return c.dial(ctx, address, true)
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
			req.Header.Del("Referer") // the next host must not learn a signed URL
			if err := checkForm(req.URL); err != nil {
				return err
			}
			return h.enter(ctx, req, via)
		},
	}
}

// redirects is a transport that reports redirects to an invalid URL: http.Client returns an untyped error for them.
type redirects struct{ http.RoundTripper }

func (r redirects) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.RoundTripper.RoundTrip(req)
	if err != nil || resp.Header.Get("Location") == "" || resp.StatusCode/100 != 3 {
		return resp, err
	}
	if _, err := req.URL.Parse(resp.Header.Get("Location")); err != nil {
		resp.Body.Close()                                                    //nolint:errcheck // the body is not read
		return nil, forbidden("the source redirects to an invalid URL", nil) // the cause contains the URL
	}
	return resp, nil
}

// checkForm checks the form of a URL. Addresses and ports are checked when they are dialled.
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
