package rediscache_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/test/servers"
)

// BenchmarkGet compares a hit with a bare GET of the same bytes by the same library, which is the lower bound for the
// time of a hit.
func BenchmarkGet(b *testing.B) {
	addrs, prefix := servers.Redis(b)
	cache, _ := openWith(b, settings(addrs, prefix), "v1", time.Now, half)
	const ids = 64
	product := catalog.Document{Version: 7, ETag: `"7-v1"`, Body: bytes.Repeat([]byte("x"), 900)}
	keys := make([]string, ids)
	for id := range catalog.ProductID(ids) {
		if _, err := cache.Fill(b.Context(), id, product, time.Now()); err != nil {
			b.Fatal(err)
		}
		keys[id] = fmt.Sprintf("%sp:{%d}", prefix, id)
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, PoolSize: 20})
	b.Cleanup(func() { _ = client.Close() })

	b.Run("bare", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if _, err := client.Get(b.Context(), keys[i%ids]).Bytes(); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if _, hit, err := cache.Get(b.Context(), catalog.ProductID(i%ids)); err != nil || !hit {
					b.Error(hit, err)
				}
			}
		})
	})
}
