package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/event"
)

func races() []test {
	return []test{
		{name: "pictures of one product that finish at once all stay", run: finishTogether},
		{name: "an edit's time is from after the wait for the product", run: timeAfterWait},
		{name: "an attempt that adopts and a compensator that dooms: one of them wins", run: adoptOrDoom},
		{name: "two compensators never doom the same intent", run: doomTogether},
		{name: "two relays never hold the same message", run: drainTogether},
		{name: "two users with one address: one of them is taken", run: emailTogether},
	}
}

// together runs n functions at once and waits for all.
func together(n int, fn func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			fn(i)
		})
	}
	close(start)
	wg.Wait()
}

func finishTogether(b *bench) {
	const pictures = 8
	p := b.product(pictures)
	together(pictures, func(i int) {
		_, err := b.Store.Edit(b.ctx(), p.ID, unfailing(func(p *catalog.Product) catalog.Change {
			p.Images[i] = finished(p.Images[i], fmt.Sprintf("products/1/%d/1-a/", i))
			p.Compressed = p.CompressedKeys()
			p.Version++
			return catalog.Change{}
		}))
		if err != nil {
			b.Errorf("finish picture %d: %v", i, err)
		}
	})
	got := b.load(p.ID)
	b.same(got.Compressed, got.CompressedKeys(), "compressed, beside what the pictures say")
	if len(got.Compressed) != pictures || got.Version != 1+pictures {
		b.Errorf("got %d compressed and version %d, want %d and %d", len(got.Compressed), got.Version, pictures, 1+pictures)
	}
}

func timeAfterWait(b *bench) {
	p := b.product(0)
	var mu sync.Mutex
	times := map[int64]time.Time{}
	together(6, func(int) {
		for range 5 {
			_, err := b.Store.Edit(b.ctx(), p.ID, func(p *catalog.Product, now time.Time) (catalog.Change, error) {
				p.Version++
				mu.Lock()
				defer mu.Unlock()
				times[p.Version] = now
				return catalog.Change{}, nil
			})
			if err != nil {
				b.Errorf("edit: %v", err)
			}
		}
	})
	for version := int64(3); version <= 31; version++ {
		if times[version].Before(times[version-1]) {
			b.Errorf("version %d is of %s, before version %d of %s", version, times[version], version-1, times[version-1])
		}
	}
}

func adoptOrDoom(b *bench) {
	p := b.product(1)
	var adopted, doomed int
	for round := range 40 {
		prefix := fmt.Sprintf("products/1/1/%d-a/", round)
		b.intend(p.ID, prefix, 0)
		var adoptErr, doomErr error
		var prefixes []string
		together(2, func(i int) {
			if i == 0 {
				prefixes, doomErr = b.Intents.DoomDue(b.ctx(), 10, time.Hour)
				return
			}
			adoptErr = b.adopt(p.ID, prefix)
		})
		b.must(doomErr, "doom")
		switch lost := errors.Is(adoptErr, catalog.ErrDoomed); {
		case lost && len(prefixes) == 1:
			doomed++
		case adoptErr == nil && len(prefixes) == 0:
			adopted++
		default:
			b.Fatalf("adopt said %v, and %v was doomed: both or neither", adoptErr, prefixes)
		}
	}
	b.Logf("%d adopted, %d doomed", adopted, doomed)
	if got := b.load(p.ID).Version; got != 1+int64(adopted) {
		b.Errorf("got version %d, want one more for each of %d adopted", got, adopted)
	}
}

func doomTogether(b *bench) {
	p := b.product(1)
	const total = 60
	for i := range total {
		b.intend(p.ID, fmt.Sprintf("products/1/1/%d-a/", i), 0)
	}
	var mu sync.Mutex
	seen := map[string]int{}
	together(4, func(int) {
		for {
			prefixes, err := b.Intents.DoomDue(b.ctx(), 7, time.Hour)
			if err != nil || len(prefixes) > 7 {
				b.Errorf("got %d prefixes and %v, want at most 7", len(prefixes), err)
			}
			if len(prefixes) == 0 {
				return
			}
			mu.Lock()
			for _, prefix := range prefixes {
				seen[prefix]++
			}
			mu.Unlock()
		}
	})
	for prefix, times := range seen {
		if times != 1 {
			b.Errorf("%s was doomed %d times", prefix, times)
		}
	}
	if len(seen) != total {
		b.Errorf("got %d doomed, want %d", len(seen), total)
	}
}

// drainTogether holds one round open inside publish while another drains beside it.
func drainTogether(b *bench) {
	p := b.product(0)
	for range 4 {
		b.send(p.ID, catalog.Outgoing{Message: message(p.ID)})
	}
	seen := map[string]int{}
	_, err := b.Outbox.Drain(b.ctx(), 2, func(_ context.Context, first []event.Message) []error {
		second, _ := b.drain(10, nil)
		third, drained := b.drain(10, nil)
		if len(first) != 2 || len(second) != 2 || len(third) != 0 || drained.Claimed != 0 {
			b.Errorf("got %d, %d and %d messages, want 2, 2 and none", len(first), len(second), len(third))
		}
		for _, m := range append(first, second...) {
			seen[m.ID]++
		}
		return make([]error, len(first))
	})
	b.must(err, "drain")
	if len(seen) != 4 {
		b.Errorf("got %d different messages, want 4", len(seen))
	}
	if d := b.depth(); d.Due != 0 {
		b.Errorf("got %d messages left, want none", d.Due)
	}
}

func emailTogether(b *bench) {
	var mu sync.Mutex
	made := 0
	together(4, func(int) {
		_, err := b.Store.InsertUser(b.ctx(), catalog.User{Name: "Ada", Email: "ada@example.com"})
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			made++
		}
	})
	if made != 1 {
		b.Errorf("got %d users with one address, want 1", made)
	}
}
