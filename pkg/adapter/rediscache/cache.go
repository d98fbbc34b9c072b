package rediscache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

// Cache is a catalog.Cache in a Redis Cluster. It is safe for concurrent use.
type Cache struct {
	cfg        Config
	tag        string
	now        func() time.Time
	random     func() float64
	client     *redis.ClusterClient
	fill       *redis.Script
	invalidate *redis.Script
	batchers   sync.Map // *batcher by the address of its node; entries of removed nodes stay
	metrics    *metrics
	log        *zap.Logger
}

var _ catalog.Cache = (*Cache)(nil)

// Settings of the client. One redirect follows a slot that has moved, the second one a slot that is being moved. After a
// failover, reads go to the old master until the map of the cluster is reloaded.
const (
	redirects       = 2
	retryPause      = 5 * time.Millisecond
	reloadInterval  = 10 * time.Second // of the map of slots to nodes
	connIdle        = 5 * time.Minute
	poolPerCPU      = 10
	ttlJitter       = 0.1 // keys that are stored together do not expire together
	tooSlowFraction = 2   // a read older than TombstoneTTL / 2 is not stored
)

// New returns a cache of documents under a tag of 1 to 255 bytes. It fails for another tag and for a TLSCAFile that cannot
// be read; Redis need not run yet. random returns numbers in [0, 1) for the jitter of the TTL. now and random are called
// concurrently.
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
		client:     redis.NewClusterClient(opts),
		fill:       redis.NewScript(fillScript),
		invalidate: redis.NewScript(invalidateScript),
		metrics:    newMetrics(reg),
		log:        log,
	}, nil
}

func options(cfg Config) (*redis.ClusterOptions, error) {
	tlsConfig, err := cfg.tlsConfig()
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
		DialerRetries:              1, // the default is five with pauses; callers continue without the cache instead
		ReadTimeout:                cfg.IOTimeout,
		WriteTimeout:               cfg.IOTimeout,
		PoolTimeout:                cfg.IOTimeout,
		ContextTimeoutEnabled:      true,
		PoolSize:                   cfg.PoolSize,
		ConnMaxIdleTime:            connIdle,
		ClusterStateReloadInterval: reloadInterval,
		DisableRoutingPolicies:     true, // they are for commands with several keys; ours have one
		TLSConfig:                  tlsConfig,
	}
	if cfg.PoolSize == 0 {
		opts.PoolSize = poolPerCPU * runtime.GOMAXPROCS(0)
	}
	return opts, nil
}

// deadlineContext is a context with an earlier deadline but no timer: Done is not closed at the deadline. Every GET looks
// up its node, nearly always in a map in memory, for which a timer would be wasted. If the map has to be loaded, go-redis
// applies the deadline to the socket.
type deadlineContext struct {
	context.Context //nolint:containedctx // this type is itself a context
	deadline        time.Time
}

// Deadline implements context.Context.
func (c deadlineContext) Deadline() (time.Time, bool) {
	if parent, ok := c.Context.Deadline(); ok && parent.Before(c.deadline) {
		return parent, true
	}
	return c.deadline, true
}

// Get implements catalog.Cache. The body and the ETag share the memory of the reply, so the body must not be changed.
func (c *Cache) Get(ctx context.Context, id catalog.ProductID) (catalog.Document, bool, error) {
	start := c.now()
	reply, err := c.get(ctx, c.key(id), start)
	c.metrics.getSeconds.Observe(c.now().Sub(start).Seconds())

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
	doc, result := decode(reply.Val(), raw, c.tag)
	c.metrics.gets[result].Inc()
	return doc, result == found, nil
}

// get reads a key from its node, in one batch with concurrent reads.
func (c *Cache) get(ctx context.Context, key string, start time.Time) (*redis.StringCmd, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	master, err := c.client.MasterForKey(deadlineContext{ctx, start.Add(c.cfg.Timeout)}, key) //nolint:contextcheck // it inherits
	if err != nil {
		return nil, err
	}
	addr := master.Options().Addr
	entry, known := c.batchers.Load(addr)
	if !known {
		entry, _ = c.batchers.LoadOrStore(addr, &batcher{
			send: c.fetchBatch, opened: c.metrics.nodesDown.Inc, now: c.now, timeout: c.cfg.Timeout, pause: c.cfg.DownPause,
		})
	}
	node, _ := entry.(*batcher) // nothing else is stored
	reply, err := node.get(ctx, key, master, start)
	if errors.Is(err, errNodeDown) {
		c.metrics.skippedGets.Inc()
	}
	return reply, err
}

// isDown reports whether the node of a key counts as down, because it did not answer the last reads.
func (c *Cache) isDown(ctx context.Context, key string) bool {
	master, err := c.client.MasterForKey(deadlineContext{ctx, c.now().Add(c.cfg.Timeout)}, key) //nolint:contextcheck // it inherits
	if err != nil {
		return false
	}
	entry, known := c.batchers.Load(master.Options().Addr)
	node, _ := entry.(*batcher) // nothing else is stored
	return known && node.down()
}

// fetchBatch reads one key, or several keys of one node. GETs that the node refuses, because a slot has moved or the node is
// no longer a master, are sent a second time, through the cluster client, which follows redirects. answered reports whether
// the node answered any of them, with a value or an error.
func (c *Cache) fetchBatch(members []*pendingGet) (answered bool) {
	// The context is independent of the members', so that none of them can end it for the others. It needs a timer: while
	// go-redis makes a connection, it waits for Done alone.
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.Timeout)
	defer cancel()
	c.metrics.getKeys.Observe(float64(len(members)))
	if len(members) == 1 {
		members[0].reply = c.client.Get(ctx, members[0].key)
		return isAnswer(members[0].reply.Err())
	}
	pipelineGets(ctx, members[0].node.Pipeline(), members)
	answered = slices.ContainsFunc(members, func(get *pendingGet) bool { return isAnswer(get.reply.Err()) })
	refused := make([]*pendingGet, 0, len(members))
	for _, get := range members {
		if err := get.reply.Err(); err != nil && !errors.Is(err, redis.Nil) {
			refused = append(refused, get)
		}
	}
	if len(refused) > 0 {
		pipelineGets(ctx, c.client.Pipeline(), refused)
	}
	return answered
}

// isAnswer reports whether a GET with this error was answered by its node.
func isAnswer(err error) bool {
	return err == nil || errors.As(err, new(redis.Error))
}

// pipelineGets sends one GET for each different key in one pipeline, and sets the replies of all members.
func pipelineGets(ctx context.Context, pipe redis.Pipeliner, members []*pendingGet) {
	replies := make(map[string]*redis.StringCmd, len(members))
	for _, get := range members {
		reply, sent := replies[get.key]
		if !sent {
			reply = pipe.Get(ctx, get.key)
			replies[get.key] = reply
		}
		get.reply = reply
	}
	_, _ = pipe.Exec(ctx) // every reply has its own error
}

// Fill implements catalog.Cache.
func (c *Cache) Fill(ctx context.Context, id catalog.ProductID, doc catalog.Document, readStart time.Time,
) (catalog.FillResult, error) {
	if len(doc.ETag) > maxTextBytes || doc.Version < 0 {
		return 0, fault.New(fault.Internal, "bad_document", "the document's ETag or version does not fit a frame")
	}
	if c.now().Sub(readStart) > c.cfg.TombstoneTTL/tooSlowFraction {
		c.metrics.fills.WithLabelValues(outcomeTooSlow).Inc()
		return catalog.TooSlow, nil
	}
	if c.isDown(ctx, c.key(id)) {
		c.metrics.fills.WithLabelValues(outcomeNodeDown).Inc()
		return 0, unavailable(ctx, "fill in cache", errNodeDown)
	}
	frame, identity := encode(doc, c.tag)
	reply, err := c.run(ctx, "fill", c.fill, id, doc.Version, frame, c.ttl(doc), identity)
	switch {
	case err != nil:
		return 0, err
	case reply == scriptNewer:
		return catalog.Stale, nil
	case reply == scriptRefused:
		return 0, fault.New(fault.Unavailable, "cache_full", "the cache has no memory left")
	default:
		return catalog.Filled, nil
	}
}

// Invalidate implements catalog.Cache. It is idempotent. It is sent even if the node counts as down, because other processes
// may still read from the node.
func (c *Cache) Invalidate(ctx context.Context, id catalog.ProductID, version int64) error {
	if version < 0 {
		return fault.New(fault.Internal, "bad_version", "the version is negative")
	}
	_, err := c.run(ctx, "invalidate", c.invalidate, id, version, tombstone(version), c.cfg.TombstoneTTL)
	return err
}

// run runs a script on the key's node and records its outcome. extra has the arguments that only fillScript has.
func (c *Cache) run(ctx context.Context, operation string, script *redis.Script, id catalog.ProductID,
	version int64, frame []byte, ttl time.Duration, extra ...any,
) (reply int, err error) {
	start := c.now()
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	digits := appendHead(make([]byte, 0, frameHeadBytes), kindTombstone, version)[2:]
	args := append([]any{frame, digits, ttl.Milliseconds()}, extra...)
	reply, err = script.Run(bounded, c.client, []string{c.key(id)}, args...).Int()

	outcome := outcomeError
	switch {
	case err != nil:
		err = unavailable(ctx, operation+" in cache", err)
	case reply == scriptStored:
		outcome = outcomeStored
	case reply == scriptNewer:
		outcome = outcomeNewer
	case reply == scriptRefused:
		outcome = outcomeNoMemory
		c.log.Warn("cache out of memory; write refused and entry deleted", zap.String("operation", operation),
			zap.Int64("product_id", int64(id)))
	default:
		err = fault.New(fault.Internal, "bad_script", "a script of the cache returned "+strconv.Itoa(reply))
	}
	c.metrics.observeWrite(operation, c.now().Sub(start), outcome)
	return reply, err
}

// ttl returns MissingTTL for an id that has had no version yet, because the product may be created at any moment, and TTL
// with jitter for everything that has a version.
func (c *Cache) ttl(doc catalog.Document) time.Duration {
	if doc.Missing && doc.Version == 0 {
		return c.cfg.MissingTTL
	}
	return time.Duration(float64(c.cfg.TTL) * (1 - ttlJitter + 2*ttlJitter*c.random()))
}

// key returns the key of a product. The braces make the hash slot depend on the id alone and not on the prefix.
func (c *Cache) key(id catalog.ProductID) string {
	return c.cfg.KeyPrefix + "p:{" + id.String() + "}"
}

// Ping returns nil if every master answers, else fault.Unavailable or the error of ctx. A program without its cache is
// slower, but correct.
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

// Close closes all connections.
func (c *Cache) Close() error {
	if err := c.client.Close(); err != nil {
		return fmt.Errorf("close cache: %w", err)
	}
	return nil
}
