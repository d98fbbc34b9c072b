package fetch_test

import (
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/fetch"
	"vitrine.io/pkg/foundation/media"
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
