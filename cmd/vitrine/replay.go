package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/adapter/rediscache"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/platform/program"
)

// ReplayConfig is everything that can be said about dead replay.
type ReplayConfig struct {
	Pipeline pipeline.Config   `envPrefix:"PIPELINE_"`
	Catalog  catalog.Config    `envPrefix:"CATALOG_"`
	Postgres postgres.Config   `envPrefix:"POSTGRES_"`
	Redis    rediscache.Config `envPrefix:"REDIS_"`
	Kafka    kafka.Config      `envPrefix:"KAFKA_"`
}

// replayOptions are what can be said about one replay.
type replayOptions struct {
	filter     deadFilter
	all        bool
	dry, force bool
	rate       float64 // a second
}

func (c console) deadReplayCommand() *cobra.Command {
	var o replayOptions
	var file string
	cmd := &cobra.Command{
		Use: "replay EVENT... | --all", Short: "Ask again for pictures that were given up, and send records once more",
		Long: `A picture is asked for again, with the pipeline in force, if nothing has happened to it since it was given up; else
there is nothing to do, which is no error. A record that no consumer could read is sent to its topic once more, byte for
byte, if this version can read it, or with --force. Repeating it all is harmless.

Prints a line for each and what it came to. Exits with 0 if all were dealt with, or else with 1.`,
		Example: "  vitrine dead replay --all --code connect_failed --since 24h",
		RunE: func(cmd *cobra.Command, ids []string) error {
			if err := o.check(ids); err != nil {
				return err
			}
			return c.replay(cmd.Context(), o, ids, file)
		},
	}
	o.filter.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "all that the filters leave, instead of those named")
	f.BoolVar(&o.dry, "dry-run", false, "say what would be done, and do nothing")
	f.BoolVar(&o.force, "force", false, "send also records that this version cannot read: for newer programs than this one")
	f.Float64Var(&o.rate, "rate", 10, "how many a second at most, so that live traffic goes first")
	f.StringVar(&file, "config", "", "YAML file with the configuration")
	return cmd
}

func (o replayOptions) check(ids []string) error {
	switch {
	case o.rate <= 0:
		return errors.New("--rate: has to be above 0")
	case o.all && len(ids) > 0:
		return errors.New("give events or --all, not both")
	case !o.all && len(ids) == 0:
		return errors.New("give events, or --all")
	case !o.all && o.filter != deadFilter{}:
		return errors.New("filters go with --all")
	}
	return o.filter.check()
}

func (c console) replay(ctx context.Context, o replayOptions, ids []string, file string) (err error) {
	r := &replayer{
		console: c, options: o, pace: time.Duration(float64(time.Second) / o.rate), now: time.Now(),
		wanted: make(map[string]bool), seen: make(map[string]bool), sent: make(map[[sha256.Size]byte]bool),
		counts: make(map[string]int),
	}
	for _, id := range ids {
		r.wanted[id] = true
	}
	var cfg kafka.Config
	if o.dry { // needs no other server
		only, err := configured[DeadConfig](c, file)
		if err != nil {
			return err
		}
		cfg = only.Kafka
	} else {
		all, err := configured[ReplayConfig](c, file)
		if err != nil {
			return err
		}
		stop, err := r.open(ctx, all)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		cfg = all.Kafka
	}
	r.kafka = cfg
	err = readDead(ctx, cfg, func(l deadLetter) error { return r.take(ctx, l) })
	return errors.Join(err, r.summary())
}

// replayer deals with one dead letter after the other.
type replayer struct {
	console
	options   replayOptions
	pace      time.Duration // between two that were asked for or sent
	now       time.Time
	wanted    map[string]bool // by id; none if all
	seen      map[string]bool // by id
	sent      map[[sha256.Size]byte]bool
	counts    map[string]int // by what it came to
	kafka     kafka.Config
	service   *catalog.Service // nil for a dry run
	publisher *kafka.Publisher
}

// What replaying a letter can come to.
const (
	asked   = "asked for again"
	resent  = "sent again"
	nothing = "nothing to do"
	leftout = "left"
	failed  = "failed"
)

// open connects to what a replay needs beside the topic.
func (r *replayer) open(ctx context.Context, cfg ReplayConfig) (func() error, error) {
	parts, closeCatalog, err := openCatalog(cfg, zap.NewNop())
	if err != nil {
		return nil, err
	}
	if r.publisher, err = kafka.NewPublisher(cfg.Kafka, prometheus.NewRegistry(), zap.NewNop()); err != nil {
		return nil, errors.Join(err, closeCatalog())
	}
	r.service = parts.service
	stop := func() error { return errors.Join(r.publisher.Close(), closeCatalog()) }
	if err := parts.inForce(ctx); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// take deals with one letter if it is meant. An error ends the replay: what is down would fail all the others, too.
func (r *replayer) take(ctx context.Context, l deadLetter) error {
	if r.seen[l.ID] || (r.options.all && !r.options.filter.takes(l, r.now)) || (!r.options.all && !r.wanted[l.ID]) {
		return nil
	}
	r.seen[l.ID] = true
	var came, detail string
	var err error
	switch {
	case l.Image != nil:
		came, detail, err = r.askAgain(ctx, l)
	case l.Undecodable != nil:
		came, detail, err = r.sendAgain(ctx, l)
	default:
		came, detail = leftout, "it cannot be read: "+l.Unreadable
	}
	if err != nil {
		came, detail = failed, err.Error()
	}
	r.counts[came]++
	fmt.Fprintf(r.stdout, "%s  %s: %s\n", plain(l.ID), came, plain(detail))
	switch {
	case fault.Is(err, fault.Unavailable), ctx.Err() != nil:
		return fmt.Errorf("stopped at %s; repeating it all is harmless: %w", l.ID, err)
	case came == asked, came == resent:
		return r.rest(ctx)
	}
	return nil
}

func (r *replayer) rest(ctx context.Context) error {
	if r.options.dry {
		return nil
	}
	backoff.Sleep(ctx, r.pace)
	return ctx.Err()
}

func (r *replayer) askAgain(ctx context.Context, l deadLetter) (came, detail string, err error) {
	d := l.Image
	what := fmt.Sprintf("picture %d of product %d, given up as %s", d.ImageID, d.ProductID, d.Code)
	if r.options.dry {
		return asked, what + ", unless it has changed since", nil
	}
	err = r.service.Replay(ctx, catalog.ProductID(d.ProductID), catalog.ImageID(d.ImageID), d.FencingToken)
	switch {
	case errors.Is(err, catalog.ErrDone):
		return nothing, what + ": it has changed since", nil
	case fault.Is(err, fault.NotFound):
		return nothing, what + ": it is gone", nil
	}
	return asked, what, err
}

// sendAgain sends a record once more. What is the same to the last byte is sent once: whatever sent it, or was replayed in
// vain, may have left many.
func (r *replayer) sendAgain(ctx context.Context, l deadLetter) (came, detail string, err error) {
	u := l.Undecodable
	what := fmt.Sprintf("record %s/%d/%d", u.Topic, u.Partition, u.Offset)
	topic, ours := r.ours(u.Topic)
	switch reason := unread(topic, l); {
	case u.Truncated:
		return leftout, what + ": its end is lost, it was longer than what is kept", nil
	case !ours:
		return leftout, what + ": its topic is none of ours", nil
	case r.sent[printOf(l)]:
		return nothing, what + ": the same was sent just now", nil
	case reason != nil && !r.options.force:
		return leftout, what + ": this version cannot read it, either: " + reason.Error(), nil
	}
	r.sent[printOf(l)] = true
	if !r.options.dry {
		err = r.publisher.Resend(ctx, kafka.Record{
			Topic: u.Topic, Key: []byte(l.Product), Value: u.Payload, Headers: u.Headers,
		})
	}
	return resent, what + " to its topic", err
}

// ours returns the name, without the prefix, of a topic that is consumed.
func (r *replayer) ours(name string) (topic string, ok bool) {
	for _, topic := range []string{event.TopicRequested, event.TopicChanged} {
		if name == r.kafka.Name(topic) {
			return topic, true
		}
	}
	return "", false
}

// unread says why a consumer of this version cannot read the record, or nil.
func unread(topic string, l deadLetter) error {
	m, err := event.FromRecord(topic, []byte(l.Product), l.Undecodable.Payload, l.Undecodable.Headers)
	if err != nil {
		return err
	}
	if topic == event.TopicChanged {
		_, err = event.Decode[event.ProductChanged](m)
	} else {
		_, err = event.Decode[event.ImageRequested](m)
	}
	return err
}

// printOf is the same for records that are the same in all but their place.
func printOf(l deadLetter) [sha256.Size]byte {
	var all bytes.Buffer
	u := l.Undecodable
	fmt.Fprintf(&all, "%q %q", u.Topic, l.Product)
	for _, name := range slices.Sorted(maps.Keys(u.Headers)) {
		fmt.Fprintf(&all, " %q=%q", name, u.Headers[name])
	}
	all.Write(u.Payload)
	return sha256.Sum256(all.Bytes())
}

// summary prints what it all came to. An error says that not all were dealt with.
func (r *replayer) summary() error {
	text := make([]string, 0, len(r.counts))
	for _, came := range []string{asked, resent, nothing, leftout, failed} {
		text = append(text, fmt.Sprintf("%d %s", r.counts[came], came))
	}
	would := ""
	if r.options.dry {
		would = "would come to: "
	}
	r.say("%s%s", would, strings.Join(text, ", "))
	var wrong []error
	if n := r.counts[failed]; n > 0 {
		wrong = append(wrong, fmt.Errorf("%d failed", n))
	}
	for _, id := range slices.Sorted(maps.Keys(r.wanted)) {
		if !r.seen[id] {
			wrong = append(wrong, fmt.Errorf("there is no dead letter %s", id))
		}
	}
	return errors.Join(wrong...)
}

// catalogParts are a catalogue's service outside of the API and the worker, and what it is made of.
type catalogParts struct {
	service  *catalog.Service
	store    *postgres.Store
	pipeline *pipeline.Revision
}

// openCatalog connects nothing yet. The cache is only ever told to forget, so its tag does not matter; and if it is not
// where the configuration says, the API's own consumer tells it a little later.
func openCatalog(cfg ReplayConfig, log *zap.Logger) (parts catalogParts, stop func() error, err error) {
	rediscache.BridgeLogger(log)
	watcher, err := pipeline.NewWatcher(cfg.Pipeline, time.Now)
	if err != nil {
		return catalogParts{}, nil, fmt.Errorf("VITRINE_PIPELINE_FILE: %w", err)
	}
	db, err := postgres.Open(cfg.Postgres, log, prometheus.NewRegistry())
	if err != nil {
		return catalogParts{}, nil, err
	}
	cache, err := rediscache.New(cfg.Redis, "vitrine", time.Now, rand.Float64, prometheus.NewRegistry(), log)
	if err != nil {
		return catalogParts{}, nil, errors.Join(err, db.Close())
	}
	parts.pipeline, parts.store = watcher.Current(), postgres.NewStore(db)
	parts.service = catalog.New(catalog.Deps{
		Store: parts.store, Pipelines: parts.store, Cache: cache, Pipeline: watcher.Current,
		NewID: program.NewID, Random: rand.Float64, Now: time.Now, Log: log,
	}, cfg.Catalog)
	return parts, func() error { return errors.Join(cache.Close(), db.Close()) }, nil
}

// inForce is nil if a running API has the pipeline in force that this command would ask with, or if none is running.
func (p catalogParts) inForce(ctx context.Context) error {
	reports, err := p.store.Heartbeats(ctx, program.Silence)
	if err != nil {
		return fmt.Errorf("read heartbeats: %w", err)
	}
	var others []string
	for _, r := range reports {
		if r.Role != "api" {
			continue
		}
		if r.Revision == p.pipeline.ID() {
			return nil
		}
		others = append(others, r.Revision)
	}
	if len(others) == 0 {
		return nil
	}
	return fmt.Errorf("the API has pipeline revision %s in force, and this command would ask with %s: "+
		"give it the API's VITRINE_PIPELINE_FILE", strings.Join(slices.Compact(others), ", "), p.pipeline.ID())
}
