package main

import (
	"context"
	"fmt"
	"time"

	"vitrine.io/pkg/test/imageserver"
)

// Parameters of a flood.
const (
	floodImages = 5                      // of each product
	floodPause  = 100 * time.Millisecond // after a POST that was refused
)

// flood posts products without pauses, as one user whose images have a host of their own, until it has sent f.Amount images
// or f.For has passed. A POST that is refused is not repeated.
func (b *faultInjector) flood(ctx context.Context, f Fault) error {
	ends, cancel := context.WithTimeout(ctx, f.For)
	defer cancel()
	c := newAPIUser(floodUser, b.seed, b.system.apis, b.system.backends.sources(floodUser), b.history)
	defer c.client.Close()
	if err := c.register(ends); err != nil {
		return fmt.Errorf("%w: %w", errNoTarget, err)
	}
	accepted, posted := 0, 0
	for ; posted < f.Amount/floodImages && ends.Err() == nil; posted++ {
		token := fmt.Sprintf("flood-%d", posted)
		images := make([]string, floodImages)
		for i := range images {
			images[i] = fmt.Sprintf("%s/%s/%d/%s", c.sources, token, i, imageserver.JPEG)
		}
		s := c.expect(token, images)
		s.Flood = true
		if c.post(ctx, s); s.Accepted {
			accepted++
		} else {
			sleep(ends, floodPause)
		}
	}
	b.logf("flood: %d of %d products with %d images each were accepted", accepted, posted, floodImages)
	return nil
}
