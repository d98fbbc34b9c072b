package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"vitrine.io/pkg/test/client"
)

// Parameters of abused lists.
const (
	listMaxCost   = 2000                  // in the planner's units; the searches of listAbuse cost more or less than this
	abuseInterval = 20 * time.Millisecond // between two lists
	abuseRequest  = "ABUSE"               // its name in the history
	readInterval  = 50 * time.Millisecond // between two reads of a cached product, and two of the readiness, of each api
)

// listAbuse are lists that read many products of the stock or try to. The planner takes the last two for cheap: half of all
// products cost more than 1.5, but none of the first user's does.
var listAbuse = []string{
	"/products?name=%21%21%21",
	"/products?name=cup&limit=100",
	"/products?user_id=1&name=%21%21",
	"/products?user_id=1&min_price=1.5",
	"/products?user_id=1&min_price=1.5&limit=100",
}

// insertStock adds two users with 30000 products each, for lists that are expensive. Those of the first cost 1, those of the
// second 2. The checker ignores both users.
func (s *System) insertStock(ctx context.Context) error {
	const stock = `
INSERT INTO users (name, email, email_key) SELECT 'stock', g, g FROM generate_series(1, 2) g;
INSERT INTO products (user_id, product_name, product_description, product_price)
    SELECT 1 + g % 2, 'Cup', repeat('d', 300), 1 + g % 2 FROM generate_series(1, 60000) g`
	s.stock = 2
	for _, statements := range []string{stock, "VACUUM ANALYZE products"} {
		if err := s.database.exec(ctx, statements); err != nil {
			return err
		}
	}
	return nil
}

// abuse is the state of a fault of kind AbuseLists.
type abuse struct {
	*faultInjector
	client *client.Client

	mu     sync.Mutex
	lists  map[int]int // by status
	reads  int
	checks int                 // of the readiness
	late   map[string][]string // by rule: answers that a machine without a free CPU also gives
}

// lateShare is the part of the requests that may be late: one in lateShare. A machine that has no CPU free answers some
// requests late. An API whose cached reads depend on its lists answers almost all of them late.
const lateShare = 20

// abuseLists sends lists to both APIs, fifty a second, until f.For has passed. Meanwhile reads of a cached product have to
// succeed, and both APIs have to stay ready. What is in flight at the end is ignored, because another fault may follow.
func (b *faultInjector) abuseLists(ctx context.Context, f Fault) error {
	ctx, cancel := context.WithTimeout(ctx, f.For)
	defer cancel()
	a := &abuse{
		faultInjector: b, client: client.New("", client.Options{Timeout: clientTimeout}),
		lists: map[int]int{}, late: map[string][]string{},
	}
	defer a.client.Close()
	product, err := a.prepare(ctx)
	if err != nil {
		return fmt.Errorf("%w: the system does not recover from other faults in time: %w", errNoTarget, err)
	}
	var all sync.WaitGroup
	for _, api := range b.system.apis {
		all.Go(func() {
			for sleep(ctx, readInterval) {
				a.read(ctx, fmt.Sprintf("%s/products/%d", api, product))
			}
		})
	}
	for i := range b.system.apis {
		all.Go(func() {
			for sleep(ctx, readInterval) {
				a.checkReady(ctx, b.system.programs[fmt.Sprintf("api-%d", i)])
			}
		})
	}
	for i := 0; sleep(ctx, abuseInterval); i++ {
		all.Go(func() { a.list(ctx, b.system.apis[i%len(b.system.apis)]+listAbuse[i%len(listAbuse)]) })
	}
	all.Wait()
	a.checkLate()
	b.logf("abuse of lists: %v by status; %d reads of a cached product", a.lists, a.reads)
	return nil
}

// prepare waits until the servers that a cached read needs have recovered, and returns a product that both APIs have read.
func (a *abuse) prepare(ctx context.Context) (product int64, err error) {
	c := newAPIUser(abuseUser, a.seed, a.system.apis, "", a.history)
	defer c.client.Close()
	if err := c.register(ctx); err != nil {
		return 0, err
	}
	s := c.expect("abuse", nil)
	s.Key = "key-abuse"
	for !c.post(ctx, s) {
		if !sleep(ctx, retryPause) {
			return 0, errors.New("no product was accepted")
		}
	}
	for {
		err := a.recovered(ctx, s.ID)
		if err == nil {
			return s.ID, nil
		}
		if !sleep(ctx, retryPause) {
			return 0, err
		}
	}
}

// recovered returns nil if Redis is complete, both APIs are ready, and both return the product.
func (a *abuse) recovered(ctx context.Context, product int64) error {
	if err := a.system.backends.RedisReady(ctx); err != nil {
		return err
	}
	for i, api := range a.system.apis {
		if err := a.system.programs[fmt.Sprintf("api-%d", i)].ready(ctx, a.client); err != nil {
			return err
		}
		url := fmt.Sprintf("%s/products/%d", api, product)
		if err := a.client.Call(ctx, http.MethodGet, url, nil, http.StatusOK, nil); err != nil {
			return err
		}
	}
	return nil
}

// list sends one list and checks its answer.
func (a *abuse) list(ctx context.Context, url string) {
	r, err := a.client.Do(ctx, http.MethodGet, url, nil)
	if ctx.Err() != nil {
		return
	}
	a.history.record(abuseUser, abuseRequest, "", r, err)
	a.mu.Lock()
	a.lists[r.Status]++
	a.mu.Unlock()
	switch r.Status {
	case http.StatusOK, http.StatusUnprocessableEntity, http.StatusServiceUnavailable:
	default:
		a.add(listRule, url, r, err)
	}
}

// read reads a cached product.
func (a *abuse) read(ctx context.Context, url string) {
	r, err := a.client.Do(ctx, http.MethodGet, url, nil)
	if ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	a.reads++
	a.mu.Unlock()
	if err != nil || r.Status != http.StatusOK {
		a.add(readRule, url, r, err)
	}
}

// Rules of abused lists.
const (
	listRule  = "an abused list is answered with 200, 422 or 503"
	readRule  = "a cached read succeeds while lists are abused"
	readyRule = "programs stay ready while lists are abused"
)

// add adds an answer that breaks a rule. One that is late counts only if there are many.
func (a *abuse) add(rule, url string, r client.Response, err error) {
	text := fmt.Sprintf("%s: %v, %d %.200s", url, err, r.Status, r.Body)
	var failure net.Error
	late := r.Code() == "timeout" || errors.As(err, &failure) && failure.Timeout()
	if !late {
		a.addFinding(rule, text)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.late[rule] = append(a.late[rule], text)
}

// checkLate adds a finding for each rule by which too many answers were late.
func (a *abuse) checkLate() {
	a.mu.Lock()
	defer a.mu.Unlock()
	total := map[string]int{readRule: a.reads, readyRule: a.checks}
	for _, n := range a.lists {
		total[listRule] += n
	}
	for rule, late := range a.late {
		if len(late)*lateShare > total[rule] {
			a.addFinding(rule, fmt.Sprintf("%d of %d were late, the first was %s", len(late), total[rule], late[0]))
		}
	}
}

// checkReady checks that a program is ready.
func (a *abuse) checkReady(ctx context.Context, p *Program) {
	err := p.ready(ctx, a.client)
	if ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	a.checks++
	a.mu.Unlock()
	if err != nil {
		a.add(readyRule, p.Name, client.Response{}, err)
	}
}
