package fetch_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vitrine.io/pkg/foundation/media"
)

// drip is a slow answer: head, then text with one byte per interval, then nothing.
type drip struct {
	head, text string
	interval   time.Duration
}

// dial returns a dialler whose connections get this answer, each from a goroutine of serving.
func (d drip) dial(serving *sync.WaitGroup) func(string) (net.Conn, error) {
	return func(string) (net.Conn, error) {
		client, server := net.Pipe()
		serving.Go(func() {
			defer server.Close()
			buffer := make([]byte, 4<<10)
			if _, err := server.Read(buffer); err != nil {
				return
			}
			_, _ = server.Write([]byte(d.head))
			for i := range len(d.text) {
				<-time.After(d.interval)
				if _, err := server.Write([]byte(d.text[i : i+1])); err != nil {
					return
				}
			}
			_, _ = server.Read(buffer)
		})
		return client, nil
	}
}

// stuck is a resolver and a dialler that block until their context ends.
type stuck struct{}

func (stuck) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, &net.DNSError{Err: ctx.Err().Error(), IsTimeout: true}
}

func (stuck) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// timeoutCase is a source that exceeds a time limit.
type timeoutCase struct {
	url     string
	answer  drip
	stuck   string // "resolver" or "dialler" never returns
	want    media.Code
	minRate int64 // bytes per second
	after   int   // seconds until the failure
}

// timeoutCases returns a source for each time limit of the default rules (connect 5s, headers 10s, all 30s), and of a rate
// window of 10s.
func timeoutCases() map[string]timeoutCase {
	const body = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
	const tick = 10 * time.Millisecond
	long := strings.Repeat("x", 100_000)
	return map[string]timeoutCase{
		"name": {
			url: "http://x.test/", stuck: "resolver", want: media.DNSFailed, after: 5,
		},
		"connection": {
			url: "http://x.test/", stuck: "dialler", want: media.Timeout, after: 5,
		},
		"tls": {
			url: "https://x.test/", answer: drip{}, want: media.Timeout, after: 5,
		},
		"headers": {
			url: "http://x.test/", answer: drip{}, want: media.Timeout, after: 10,
		},
		"dripping_headers": {
			url: "http://x.test/", answer: drip{"HTTP/1.1 200 OK\r\n", long, time.Second}, want: media.Timeout, after: 10,
		},
		"no_body": {
			url: "http://x.test/", answer: drip{body, "", 0}, minRate: 1, want: media.Timeout, after: 10,
		},
		"trickling_body": {
			url: "http://x.test/", answer: drip{body, long, time.Second}, minRate: 2, want: media.Timeout, after: 10,
		},
		"body_that_stops": {
			url: "http://x.test/", answer: drip{body, long[:1000], tick}, minRate: 90, want: media.Timeout, after: 20,
		},
		"slow_and_steady_body": {
			url: "http://x.test/", answer: drip{body, long, tick}, minRate: 90, want: media.Timeout, after: 30,
		},
		"no_minimum_rate": {
			url: "http://x.test/", answer: drip{body, "", 0}, want: media.Timeout, after: 30,
		},
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	t.Run("every_step_is_limited", testTimeoutsEveryStepIsLimited)
	t.Run("addresses_share_connect_timeout", testTimeoutsAddressesShareConnectTimeout)
	t.Run("deadline_of_caller_is_returned", testTimeoutsDeadlineOfCallerIsReturned)
}

func testTimeoutsEveryStepIsLimited(t *testing.T) {
	t.Parallel()
	for name, c := range timeoutCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var serving sync.WaitGroup
				fake := newFakeNet()
				fake.fallback, fake.dial = publicV4, c.answer.dial(&serving)
				network := fake.network()
				switch c.stuck {
				case "resolver":
					network.Resolver = stuck{}
				case "dialler":
					network.Dial = stuck{}.Dial
				}
				start := time.Now()
				got, err := newFetcher(network, c.minRate).Fetch(t.Context(), c.url, rules(), 1<<20)
				failed(t, got.Body, err, c.want)
				if elapsed := time.Since(start); elapsed != time.Duration(c.after)*time.Second {
					t.Errorf("elapsed: got %v, want %d seconds", elapsed, c.after)
				}
				serving.Wait() // every connection was closed
				synctest.Wait()
			})
		})
	}
}

func testTimeoutsAddressesShareConnectTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeNet()
		fake.names["x.test"] = []string{publicV4, otherV4}
		var dials []time.Duration
		start := time.Now()
		network := fake.network()
		network.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials = append(dials, time.Since(start))
			return stuck{}.Dial(ctx, network, address)
		}
		got, err := newFetcher(network, 0).Fetch(t.Context(), "http://x.test/", rules(), 100)
		failed(t, got.Body, err, media.Timeout)
		if len(dials) != 2 || dials[1] != 2500*time.Millisecond {
			t.Errorf("dialled after %v, want the second after half of 5s", dials)
		}
	})
}

func testTimeoutsDeadlineOfCallerIsReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		fake := newFakeNet()
		fake.fallback = publicV4
		network := fake.network()
		network.Dial = stuck{}.Dial
		_, err := newFetcher(network, 0).Fetch(ctx, "http://x.test/", rules(), 100)
		if err != context.DeadlineExceeded { //nolint:errorlint // it has to be unchanged
			t.Errorf("got %v, want context.DeadlineExceeded unchanged", err)
		}
		synctest.Wait()
	})
}
