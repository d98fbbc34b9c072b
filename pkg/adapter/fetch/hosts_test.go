package fetch_test

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/fetch"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/slots"
)

// slow is a site that holds its requests until they are released.
type slow struct {
	arrived, proceed chan struct{}
}

func newSlow() slow { return slow{make(chan struct{}), make(chan struct{})} }

func (s slow) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.arrived <- struct{}{}
	<-s.proceed
	_, _ = w.Write([]byte("image"))
}

// waiting returns a fetcher whose waits for slots are short, with hosts as its slots.
func (fake *fakeNet) waiting(wait time.Duration, hosts *slots.Slots[string]) *fetch.Fetcher {
	c := config()
	c.SlotWait = wait
	return fetch.New(c, bounds(), fake.network(), time.Now, prometheus.NewRegistry(), zap.NewNop()).ShareHosts(hosts)
}

func TestSlots(t *testing.T) {
	t.Parallel()
	t.Run("names_of_one_network_share_its_limit", testSlotsNamesOfOneNetworkShareItsLimit)
	t.Run("fallback_holds_a_slot_of_its_own_network", testSlotsFallbackHoldsASlotOfItsOwnNetwork)
	t.Run("failed_handshake_tries_no_other_address", testSlotsFailedHandshakeTriesNoOtherAddress)
	t.Run("redirect_to_a_busy_host_names_it", testSlotsRedirectToABusyHostNamesIt)
	t.Run("redirect_waits_and_releases_its_slot", testSlotsRedirectWaitsAndReleasesItsSlot)
}

func testSlotsNamesOfOneNetworkShareItsLimit(t *testing.T) {
	t.Parallel()
	fake, site := newFakeNet(), newSlow()
	for i := range 6 {
		fake.site(t, "shop"+strconv.Itoa(i)+".test", "93.184.215."+strconv.Itoa(i+1), "80", site)
	}
	fake.site(t, "other.test", otherV4, "80", answer(http.StatusOK, "image"))
	f, one := fake.waiting(time.Millisecond, slots.New[string]()), rules()
	one.PerHost = 1
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			if _, err := f.Fetch(t.Context(), "http://shop"+strconv.Itoa(i)+".test/", one, 100); err != nil {
				t.Error(err)
			}
		})
		<-site.arrived
	}
	got, err := f.Fetch(t.Context(), "http://shop4.test/", one, 100)
	if busy := failed(t, got.Body, err, media.HostBusy); busy.Host != "shop4.test" {
		t.Errorf("got host %q, want shop4.test", busy.Host)
	}
	if _, err := f.Fetch(t.Context(), "http://other.test/", one, 100); err != nil {
		t.Errorf("another network: %v", err)
	}
	close(site.proceed)
	all.Wait()
	go func() { <-site.arrived }()
	if _, err := f.Fetch(t.Context(), "http://shop5.test/", one, 100); err != nil {
		t.Errorf("after the connections were closed: %v", err)
	}
}

// fill makes four downloads of host, one network's limit with one per host, and returns the function that ends them.
func fill(t *testing.T, f *fetch.Fetcher, host string, one pipeline.Fetch, site slow) (end func()) {
	t.Helper()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := f.Fetch(t.Context(), "http://"+host+"/", one, 100); err != nil {
				t.Error(err)
			}
		})
		<-site.arrived
	}
	return func() {
		for range 4 {
			site.proceed <- struct{}{}
		}
		all.Wait()
	}
}

// A name whose IPv6 address refuses connections falls back to IPv4.
func testSlotsFallbackHoldsASlotOfItsOwnNetwork(t *testing.T) {
	t.Parallel()
	fake, site := newFakeNet(), newSlow()
	fake.site(t, "both.test", publicV4, "80", site)
	fake.names["both.test"] = []string{publicV6, publicV4}
	const neighbour = "93.184.215.9" // refuses connections, too
	fake.names["v4.test"], fake.names["v6.test"] = []string{neighbour}, []string{publicV6}
	fake.names["other.test"] = []string{publicV6, neighbour}
	f, one := fake.waiting(time.Millisecond, slots.New[string]()), rules()
	one.PerHost = 1
	wants := func(when, host string, want media.Code) {
		_, err := f.Fetch(t.Context(), "http://"+host+"/", one, 100)
		if got := media.FailureOf(err); got == nil || got.Code != want {
			t.Errorf("%s: %s: got %v, want %s", when, host, err, want)
		}
	}
	end := fill(t, f, "both.test", one, site)
	wants("four on IPv4", "v4.test", media.HostBusy)
	wants("four on IPv4", "v6.test", media.ConnectFailed)
	wants("four on IPv4", "other.test", media.HostBusy)
	end()
	busy := true
	for busy { // a connection releases its slot after its body has been read
		_, err := f.Fetch(t.Context(), "http://other.test/", one, 100)
		got := media.FailureOf(err)
		busy = got != nil && got.Code == media.HostBusy
	}
	wants("none", "other.test", media.ConnectFailed)
}

func testSlotsFailedHandshakeTriesNoOtherAddress(t *testing.T) {
	t.Parallel()
	fake := newFakeNet()
	fake.site(t, "both.test", publicV6, "443", answer(http.StatusOK, "no TLS"))
	fake.names["both.test"] = []string{publicV6, publicV4}
	f, one := fake.waiting(time.Millisecond, slots.New[string]()), rules()
	one.PerHost = 1
	for range 5 { // more than there are slots: each is released
		got, err := f.Fetch(t.Context(), "https://both.test/", one, 100)
		failed(t, got.Body, err, media.TLSFailed)
	}
	if got, want := fake.dials(), slices.Repeat([]string{"[" + publicV6 + "]:443"}, 5); !slices.Equal(got, want) {
		t.Errorf("dialled %v, want %v", got, want)
	}
}

func testSlotsRedirectToABusyHostNamesIt(t *testing.T) {
	t.Parallel()
	fake, hosts := newFakeNet(), slots.New[string]()
	fake.site(t, "shop.test", publicV4, "80", answer(http.StatusFound, "", "Location", "http://img.cdn.test/a.jpg"))
	fake.site(t, "img.cdn.test", otherV4, "80", answer(http.StatusOK, "image"))
	f, one := fake.waiting(time.Millisecond, hosts), rules()
	one.PerHost = 1
	release, _ := hosts.Acquire(t.Context(), "cdn.test", 1) // as a job of that host does
	got, err := f.Fetch(t.Context(), "http://shop.test/a.jpg", one, 100)
	if busy := failed(t, got.Body, err, media.HostBusy); busy.Host != "cdn.test" {
		t.Errorf("got host %q, want cdn.test", busy.Host)
	}
	release()
	if got, err := f.Fetch(t.Context(), "http://shop.test/a.jpg", one, 100); err != nil || string(got.Body) != "image" {
		t.Errorf("got %q and %v, want the image", got.Body, err)
	}
	if n := hosts.Keys(); n != 0 {
		t.Errorf("%d hosts are in use, want none", n)
	}
}

func testSlotsRedirectWaitsAndReleasesItsSlot(t *testing.T) {
	t.Parallel()
	fake, hosts, site := newFakeNet(), slots.New[string](), newSlow()
	fake.site(t, "shop.test", publicV4, "80", answer(http.StatusFound, "", "Location", "http://www.shop.test/a.jpg"))
	fake.site(t, "www.shop.test", publicV4, "80", answer(http.StatusFound, "", "Location", "http://cdn.test/a.jpg"))
	fake.site(t, "cdn.test", otherV4, "80", site)
	f, one := fake.waiting(time.Minute, hosts), rules()
	one.PerHost = 1
	own, _ := hosts.Acquire(t.Context(), "shop.test", 1) // the worker holds it; the redirect within it needs no other
	defer own()
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if _, err := f.Fetch(t.Context(), "http://shop.test/a.jpg", one, 100); err != nil {
				t.Error(err)
			}
		})
	}
	<-site.arrived // the other one waits for the slot
	site.proceed <- struct{}{}
	<-site.arrived
	site.proceed <- struct{}{}
	all.Wait()
}
