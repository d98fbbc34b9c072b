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

// drip is an answer that comes slowly: head, then text, a byte every interval, then nothing.
type drip struct {
	head, text string
	interval   time.Duration
}

// dial returns a dialler whose every connection is answered so, by a goroutine of serving.
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

// stuck is a resolver and a dialler that wait until they are told to stop.
type stuck struct{}

func (stuck) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, &net.DNSError{Err: ctx.Err().Error(), IsTimeout: true}
}

func (stuck) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// The times are those of the default rules: connect 5s, headers 10s, all 30s; and of a rate window of 10s.
func TestEveryStepHasATimeLimit(t *testing.T) {
	t.Parallel()
	const body = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
	const tick = 10 * time.Millisecond
	long := strings.Repeat("x", 100_000)
	cases := map[string]struct {
		url     string
		answer  drip
		stuck   string
		want    media.Code
		minimum int64 // rate
		after   int   // seconds
	}{
		"name": {
			url: "http://x.test/", stuck: "resolver", want: media.DNSFailed, after: 5,
		},
		"connection": {
			url: "http://x.test/", stuck: "dialler", want: media.Timeout, after: 5,
		},
		"TLS": {
			url: "https://x.test/", answer: drip{}, want: media.Timeout, after: 5,
		},
		"headers": {
			url: "http://x.test/", answer: drip{}, want: media.Timeout, after: 10,
		},
		"dripping headers": {
			url: "http://x.test/", answer: drip{"HTTP/1.1 200 OK\r\n", long, time.Second}, want: media.Timeout, after: 10,
		},
		"no body": {
			url: "http://x.test/", answer: drip{body, "", 0}, minimum: 1, want: media.Timeout, after: 10,
		},
		"trickling body": {
			url: "http://x.test/", answer: drip{body, long, time.Second}, minimum: 2, want: media.Timeout, after: 10,
		},
		"body that stops": {
			url: "http://x.test/", answer: drip{body, long[:1000], tick}, minimum: 90, want: media.Timeout, after: 20,
		},
		"slow, but steadily": {
			url: "http://x.test/", answer: drip{body, long, tick}, minimum: 90, want: media.Timeout, after: 30,
		},
		"no least rate": {
			url: "http://x.test/", answer: drip{body, "", 0}, want: media.Timeout, after: 30,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var serving sync.WaitGroup
				w := newWorld()
				w.fallback, w.dial = publicV4, c.answer.dial(&serving)
				network := w.network()
				switch c.stuck {
				case "resolver":
					network.Resolver = stuck{}
				case "dialler":
					network.Dial = stuck{}.Dial
				}
				began := time.Now()
				got, err := newFetcher(network, c.minimum).Fetch(t.Context(), c.url, rules(), 1<<20)
				failed(t, got.Body, err, c.want)
				if took := time.Since(began); took != time.Duration(c.after)*time.Second {
					t.Errorf("took %v, want %d seconds", took, c.after)
				}
				serving.Wait() // every connection was closed
				synctest.Wait()
			})
		})
	}
}

func TestTheConnectTimeoutIsSharedBetweenAddresses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.names["x.test"] = []string{publicV4, otherV4}
		var began []time.Duration
		start := time.Now()
		network := w.network()
		network.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			began = append(began, time.Since(start))
			return stuck{}.Dial(ctx, network, address)
		}
		got, err := newFetcher(network, 0).Fetch(t.Context(), "http://x.test/", rules(), 100)
		failed(t, got.Body, err, media.Timeout)
		if len(began) != 2 || began[1] != 2500*time.Millisecond {
			t.Errorf("dialled after %v, want the second after half of 5s", began)
		}
	})
}

func TestTheCallersDeadlineIsItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w := newWorld()
		w.fallback = publicV4
		network := w.network()
		network.Dial = stuck{}.Dial
		_, err := newFetcher(network, 0).Fetch(ctx, "http://x.test/", rules(), 100)
		if err != context.DeadlineExceeded { //nolint:errorlint // exactly as it is
			t.Errorf("got %v, want context.DeadlineExceeded as it is", err)
		}
		synctest.Wait()
	})
}
