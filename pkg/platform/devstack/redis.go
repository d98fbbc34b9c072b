package devstack

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"

	"vitrine.io/pkg/foundation/backoff"
)

// Redis is a cluster of one master in this process. It is in memory only: a cache may lose its keys, so they do not
// survive a restart.
type Redis struct {
	addr   string
	server *miniredis.Miniredis
	stop   context.CancelFunc
	clock  sync.WaitGroup
}

// redisTick is the interval at which the time of the keys advances: miniredis does not expire keys by itself, and its
// option to expire them on each access reads all keys each time.
const redisTick = 100 * time.Millisecond

// StartRedis starts the server on addr, host:port; port 0 is any free one, empty is 127.0.0.1:0. The caller closes it.
func StartRedis(addr string) (*Redis, error) {
	addr = cmp.Or(addr, anyPort)
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(addr); err != nil {
		return nil, fmt.Errorf("start redis on %s: %w", addr, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Redis{addr: server.Addr(), server: server, stop: cancel}
	r.clock.Go(func() {
		for last := time.Now(); backoff.Sleep(ctx, redisTick); {
			now := time.Now()
			server.FastForward(now.Sub(last))
			last = now
		}
	})
	return r, nil
}

// Addr returns the address of the node, host:port.
func (r *Redis) Addr() string { return r.addr }

// Close stops the server and drops all keys. A second call does nothing.
func (r *Redis) Close() {
	r.stop()
	r.clock.Wait()
	r.server.Close()
}
