package rediscache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

// Cache is a catalog.Cache in a Redis Cluster.
type Cache struct {
	cfg     Config
	tag     string
	now     func() time.Time
	random  func() float64
	client  *redis.ClusterClient
	fill    *redis.Script
	forget  *redis.Script
	gathers sync.Map // *gather by the address of its node; no more than there ever were nodes
	metrics *metrics
	log     *zap.Logger
}

var _ catalog.Cache = (*Cache)(nil)

// How a client of the cluster behaves. One redirect follows a slot that has moved, the second one that is moving. A master
// that died is not asked again once the map of the cluster has been read anew.
const (
	redirects       = 2
	retryPause      = 5 * time.Millisecond
	mapLife         = 10 * time.Second
	connIdle        = 5 * time.Minute
	poolPerCPU      = 10
	ttlJitter       = 0.1 // keys filled together do not expire together
	tooSlowFraction = 2   // a read older than TombstoneTTL / 2 is not stored
)

// New returns a cache of documents under a tag, 1 to 255 bytes long. Redis need not be there yet. random returns numbers
// from 0 up to 1, for the TTL's jitter; it is called concurrently, as now is.
func New(cfg Config, tag string, now func() time.Time, random func() float64,
	reg prometheus.Registerer, log *zap.Logger,
) (*Cache, error) {
	if tag == "" || len(tag) > maxTextBytes {
		return nil, fmt.Errorf("open cache: the tag has %d bytes, not 1 to %d", len(tag), maxTextBytes)
	}
	opts, err := options(cfg)
	if err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	return &Cache{
		cfg: cfg, tag: tag, now: now, random: random,
		client:  redis.NewClusterClient(opts),
		fill:    redis.NewScript(fillScript),
		forget:  redis.NewScript(invalidateScript),
		metrics: newMetrics(reg),
		log:     log,
	}, nil
}

func options(cfg Config) (*redis.ClusterOptions, error) {
	secure, err := cfg.tlsConfig()
	if err != nil {
		return nil, err
	}
	opts := &redis.ClusterOptions{
		Addrs: cfg.Addrs, Username: cfg.Username, Password: cfg.Password,
		ClientName:                 "vitrine",
		DisableIdentity:            true,
		MaxRedirects:               redirects,
		MinRetryBackoff:            retryPause,
		MaxRetryBackoff:            retryPause,
		DialTimeout:                cfg.DialTimeout,
		DialerRetries:              1, // the default is five, with pauses: a cache that is down is down now
		ReadTimeout:                cfg.IOTimeout,
		WriteTimeout:               cfg.IOTimeout,
		PoolTimeout:                cfg.IOTimeout,
		ContextTimeoutEnabled:      true,
		PoolSize:                   cfg.PoolSize,
		ConnMaxIdleTime:            connIdle,
		ClusterStateReloadInterval: mapLife,
		DisableRoutingPolicies:     true, // they serve commands over several keys; ours have one
		TLSConfig:                  secure,
	}
	if cfg.PoolSize == 0 {
		opts.PoolSize = poolPerCPU * runtime.GOMAXPROCS(0)
	}
	return opts, nil
}

// deadlineContext is a context with an earlier deadline and no timer of its own. Every GET looks for its node, which nearly always is
// in the map that the client holds; where it has to be asked for, go-redis takes the deadline for the socket. It is only
// right where nothing waits on Done alone.
type deadlineContext struct {
	context.Context //nolint:containedctx // it is a context
	at              time.Time
}

// Deadline implements context.Context.
func (u deadlineContext) Deadline() (time.Time, bool) {
	if at, ok := u.Context.Deadline(); ok && at.Before(u.at) {
		return at, true
	}
	return u.at, true
}

// Get implements catalog.Cache. The body is shared with nobody, but it is a part of what came off the wire and must not be
// changed.
func (c *Cache) Get(ctx context.Context, id catalog.ProductID) (catalog.Document, bool, error) {
	began := c.now()
	reply, err := c.get(ctx, c.key(id), began)
	c.metrics.getSeconds.Observe(c.now().Sub(began).Seconds())

	var raw []byte
	if err == nil {
		raw, err = reply.Bytes()
	}
	if errors.Is(err, redis.Nil) {
		c.metrics.gets[absent].Inc()
		return catalog.Document{}, false, nil
	}
	if err != nil {
		c.metrics.getErrors.Inc()
		return catalog.Document{}, false, unavailable(ctx, "get from cache", err)
	}
	doc, what := decode(reply.Val(), raw, c.tag)
	c.metrics.gets[what].Inc()
	return doc, what == found, nil
}

// get asks the node that has the key, together with others who ask it.
func (c *Cache) get(ctx context.Context, key string, began time.Time) (*redis.StringCmd, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	master, err := c.client.MasterForKey(deadlineContext{ctx, began.Add(c.cfg.Timeout)}, key) //nolint:contextcheck // it inherits
	if err != nil {
		return nil, err
	}
	addr := master.Options().Addr
	entry, known := c.gathers.Load(addr)
	if !known {
		entry, _ = c.gathers.LoadOrStore(addr, &batcher{ask: c.fetchBatch, now: c.now, timeout: c.cfg.Timeout})
	}
	node, _ := entry.(*batcher) // nothing else is stored
	return node.get(ctx, key, master, began)
}

// fetchBatch asks for one key, or for several that lie on one node as far as is known. What the node refuses, because a slot has
// moved or the node is no master any more, is asked again by way of the cluster.
func (c *Cache) fetchBatch(crew []*pendingGet) {
	// The context is nobody's: none of those on board may end it for the others. It has a timer, because go-redis waits for a
	// connection that is being made on Done alone.
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.Timeout)
	defer cancel()
	c.metrics.getKeys.Observe(float64(len(crew)))
	if len(crew) == 1 {
		crew[0].answer = c.client.Get(ctx, crew[0].key)
		return
	}
	sendBatch(ctx, crew[0].node.Pipeline(), crew)
	refused := make([]*pendingGet, 0, len(crew))
	for _, q := range crew {
		if err := q.answer.Err(); err != nil && !errors.Is(err, redis.Nil) {
			refused = append(refused, q)
		}
	}
	if len(refused) > 0 {
		sendBatch(ctx, c.client.Pipeline(), refused)
	}
}

// sendBatch asks for all keys at once.
func sendBatch(ctx context.Context, pipe redis.Pipeliner, crew []*pendingGet) {
	for _, q := range crew {
		q.answer = pipe.Get(ctx, q.key)
	}
	_, _ = pipe.Exec(ctx) // every answer has its own error
}

// Fill implements catalog.Cache.
func (c *Cache) Fill(ctx context.Context, id catalog.ProductID, doc catalog.Document, began time.Time,
) (catalog.FillOutcome, error) {
	if len(doc.ETag) > maxTextBytes || doc.Version < 0 {
		return 0, fault.New(fault.Internal, "bad_document", "the document's ETag or version does not fit a frame")
	}
	if c.now().Sub(began) > c.cfg.TombstoneTTL/tooSlowFraction {
		c.metrics.fills[outcomeTooSlow].Inc()
		return catalog.TooSlow, nil
	}
	frame, name := encode(doc, c.tag)
	answer, err := c.run(ctx, "fill", c.fill, id, doc.Version, frame, c.ttl(doc), name)
	switch {
	case err != nil:
		return 0, err
	case answer == scriptNewer:
		return catalog.Stale, nil
	case answer == scriptRefused:
		return 0, fault.New(fault.Unavailable, "cache_full", "the cache has no memory left")
	default:
		return catalog.Filled, nil
	}
}

// Invalidate implements catalog.Cache. It may be repeated.
func (c *Cache) Invalidate(ctx context.Context, id catalog.ProductID, version int64) error {
	if version < 0 {
		return fault.New(fault.Internal, "bad_version", "a version below zero")
	}
	_, err := c.run(ctx, "forget", c.forget, id, version, tombstone(version), c.cfg.TombstoneTTL)
	return err
}

// run runs one of the scripts on the key's node. extra is what only fill takes.
func (c *Cache) run(ctx context.Context, operation string, script *redis.Script, id catalog.ProductID,
	version int64, frame []byte, life time.Duration, extra ...any,
) (answer int, err error) {
	began := c.now()
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	digits := appendHead(make([]byte, 0, frameHeadBytes), kindTombstone, version)[2:]
	args := append([]any{frame, digits, life.Milliseconds()}, extra...)
	answer, err = script.Run(bounded, c.client, []string{c.key(id)}, args...).Int()

	outcome := outcomeError
	switch {
	case err != nil:
		err = unavailable(ctx, operation+" in cache", err)
	case answer == scriptStored:
		outcome = outcomeStored
	case answer == scriptNewer:
		outcome = outcomeNewer
	case answer == scriptRefused:
		outcome = outcomeNoMemory
		c.log.Warn("cache refused a write and dropped the entry", zap.String("operation", operation),
			zap.Int64("product_id", int64(id)))
	default:
		err = fault.New(fault.Internal, "bad_script", "the cache's script answered "+strconv.Itoa(answer))
	}
	c.metrics.observeWrite(operation, c.now().Sub(began), outcome)
	return answer, err
}

// ttl returns how long a document is kept: seconds for an id that never was, since nobody tells the cache when it comes
// to be unless it was asked for, and one TTL with jitter for everything that has a version.
func (c *Cache) ttl(doc catalog.Document) time.Duration {
	if doc.Missing && doc.Version == 0 {
		return c.cfg.MissingTTL
	}
	return time.Duration(float64(c.cfg.TTL) * (1 - ttlJitter + 2*ttlJitter*c.random()))
}

// key returns where a product lies. The braces make the id alone decide on the node, whatever the prefix.
func (c *Cache) key(id catalog.ProductID) string {
	var room [96]byte
	key := append(room[:0], c.cfg.KeyPrefix...)
	key = append(key, "p:{"...)
	key = strconv.AppendInt(key, int64(id), 10)
	return string(append(key, '}'))
}

// Ping asks every master whether it is there. It is for information: without a cache everything is slower, not wrong.
func (c *Cache) Ping(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	err := c.client.ForEachMaster(bounded, func(ctx context.Context, node *redis.Client) error {
		return node.Ping(ctx).Err()
	})
	if err != nil {
		return unavailable(ctx, "ping cache", err)
	}
	return nil
}

// Close ends all connections.
func (c *Cache) Close() error {
	if err := c.client.Close(); err != nil {
		return fmt.Errorf("close cache: %w", err)
	}
	return nil
}
