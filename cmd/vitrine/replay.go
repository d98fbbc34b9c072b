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

// ReplayConfig is the configuration of dead replay.
type ReplayConfig struct {
	Pipeline pipeline.Config   `envPrefix:"PIPELINE_"`
	Catalog  catalog.Config    `envPrefix:"CATALOG_"`
	Postgres postgres.Config   `envPrefix:"POSTGRES_"`
	Redis    rediscache.Config `envPrefix:"REDIS_"`
	Kafka    kafka.Config      `envPrefix:"KAFKA_"`
}

// replayOptions are the flags of dead replay.
type replayOptions struct {
	filter     deadFilter
	all        bool
	dry, force bool
	rate       float64 // letters a second
}

func (c console) deadReplayCommand() *cobra.Command {
	var o replayOptions
	var file string
	cmd := &cobra.Command{
		Use: "replay EVENT... | --all", Short: "Request failed images again, and resend records that could not be decoded",
		Long: `An image is requested again, with the pipeline in force, unless it has changed since it failed; then there is
nothing to do, which is not an error. A record that could not be decoded is sent to its topic again, unchanged, if this
version can decode it, or with --force. The command may be repeated.

Prints a line with the outcome of each. Exits with 0 if none has failed, or else with 1.`,
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
	f.BoolVar(&o.all, "all", false, "all that match the filters, instead of EVENT...")
	f.BoolVar(&o.dry, "dry-run", false, "print what would be done, and do nothing")
	f.BoolVar(&o.force, "force", false, "send also records that this version cannot decode, for newer programs")
	f.Float64Var(&o.rate, "rate", 10, "letters a second at most, to leave capacity for live traffic")
	f.StringVar(&file, "config", "", "YAML file with the configuration")
	return cmd
}

func (o replayOptions) check(ids []string) error {
	switch {
	case o.rate <= 0:
		return errors.New("--rate: must be above 0")
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
		console: c, options: o, interval: time.Duration(float64(time.Second) / o.rate), now: time.Now(),
		requested: slices.Compact(slices.Sorted(slices.Values(ids))), seen: make(map[string]bool),
		sent: make(map[[sha256.Size]byte]bool), counts: make(map[string]int),
	}
	if o.dry { // needs only Kafka
		cfg, err := loadConfig[DeadConfig](c, file)
		if err != nil {
			return err
		}
		r.kafka = cfg.Kafka
	} else {
		cfg, err := loadConfig[ReplayConfig](c, file)
		if err != nil {
			return err
		}
		stop, err := r.open(ctx, cfg)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		r.kafka = cfg.Kafka
	}
	err = readDead(ctx, r.kafka, func(l deadLetter) error { return r.replayLetter(ctx, l) })
	return errors.Join(err, r.summary())
}

// replayer replays dead letters one after the other.
type replayer struct {
	console
	options   replayOptions
	interval  time.Duration // between two jobs or records
	now       time.Time
	requested []string        // ids, sorted; empty with --all
	seen      map[string]bool // by id
	sent      map[[sha256.Size]byte]bool
	counts    map[string]int // by outcome
	kafka     kafka.Config
	service   *catalog.Service // nil for a dry run
	publisher *kafka.Publisher
}

// The outcomes of a letter.
const (
	outcomeRequested = "requested again"
	outcomeResent    = "sent again"
	outcomeUnchanged = "nothing to do"
	outcomeSkipped   = "skipped"
	outcomeFailed    = "failed"
)

// open opens what a replay needs beside the reader of the dead topic, and returns a function that closes it.
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
	if err := parts.checkRevision(ctx); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// replayLetter replays one letter if it is selected. An error ends the replay: an unavailable server would fail all other
// letters, too.
func (r *replayer) replayLetter(ctx context.Context, l deadLetter) error {
	selected := slices.Contains(r.requested, l.ID) || r.options.all && r.options.filter.matches(l, r.now)
	if r.seen[l.ID] || !selected {
		return nil
	}
	r.seen[l.ID] = true
	var outcome, detail string
	var err error
	switch {
	case l.Image != nil:
		outcome, detail, err = r.requestImage(ctx, l)
	case l.Undecodable != nil:
		outcome, detail, err = r.resendRecord(ctx, l)
	default:
		outcome, detail = outcomeSkipped, "it cannot be decoded: "+l.Unreadable
	}
	if err != nil {
		outcome, detail = outcomeFailed, err.Error()
	}
	r.counts[outcome]++
	fmt.Fprintf(r.stdout, "%s  %s: %s\n", printable(l.ID), outcome, printable(detail))
	switch {
	case fault.Is(err, fault.Unavailable), ctx.Err() != nil:
		return fmt.Errorf("stopped at %s; the command may be repeated: %w", l.ID, err)
	case !r.options.dry && (outcome == outcomeRequested || outcome == outcomeResent):
		backoff.Sleep(ctx, r.interval)
		return ctx.Err()
	}
	return nil
}

func (r *replayer) requestImage(ctx context.Context, l deadLetter) (outcome, detail string, err error) {
	d := l.Image
	what := fmt.Sprintf("image %d of product %d, failed with %s", d.ImageID, d.ProductID, d.Code)
	if r.options.dry {
		return outcomeRequested, what + ", unless it has changed since", nil
	}
	err = r.service.Replay(ctx, catalog.ProductID(d.ProductID), catalog.ImageID(d.ImageID), d.FencingToken)
	switch {
	case errors.Is(err, catalog.ErrDone):
		return outcomeUnchanged, what + ": it has changed since", nil
	case fault.Is(err, fault.NotFound):
		return outcomeUnchanged, what + ": it was deleted", nil
	}
	return outcomeRequested, what, err
}

// resendRecord sends a record again. Of records with the same content only one is sent: a retried send, or a replay that
// could not be decoded either, leaves several.
func (r *replayer) resendRecord(ctx context.Context, l deadLetter) (outcome, detail string, err error) {
	u := l.Undecodable
	what := fmt.Sprintf("record %s/%d/%d", u.Topic, u.Partition, u.Offset)
	topic, consumed := r.consumedTopic(u.Topic)
	switch reason := checkReadable(topic, l); {
	case u.Truncated:
		return outcomeSkipped, what + ": its end is missing, it was longer than a dead letter may be", nil
	case !consumed:
		return outcomeSkipped, what + ": its topic is not one of Vitrine", nil
	case r.sent[contentHash(l)]:
		return outcomeUnchanged, what + ": a record with the same content was sent just now", nil
	case reason != nil && !r.options.force:
		return outcomeSkipped, what + ": this version cannot decode it either: " + reason.Error(), nil
	}
	r.sent[contentHash(l)] = true
	if !r.options.dry {
		err = r.publisher.Resend(ctx, kafka.Record{
			Topic: u.Topic, Key: []byte(l.Product), Value: u.Payload, Headers: u.Headers,
		})
	}
	return outcomeResent, what + " to its topic", err
}

// consumedTopic returns the name without prefix if Vitrine consumes the topic.
func (r *replayer) consumedTopic(name string) (topic string, ok bool) {
	for _, topic := range []string{event.TopicRequested, event.TopicChanged} {
		if name == r.kafka.Name(topic) {
			return topic, true
		}
	}
	return "", false
}

// checkReadable returns why a consumer of this version cannot decode the record, or nil.
func checkReadable(topic string, l deadLetter) error {
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

// contentHash returns a hash of everything but the position of the record.
func contentHash(l deadLetter) [sha256.Size]byte {
	var all bytes.Buffer
	u := l.Undecodable
	fmt.Fprintf(&all, "%q %q", u.Topic, l.Product)
	for _, name := range slices.Sorted(maps.Keys(u.Headers)) {
		fmt.Fprintf(&all, " %q=%q", name, u.Headers[name])
	}
	all.Write(u.Payload)
	return sha256.Sum256(all.Bytes())
}

// summary prints the number of each outcome. It returns an error if a letter failed or was not found.
func (r *replayer) summary() error {
	text := make([]string, 0, len(r.counts))
	for _, outcome := range []string{outcomeRequested, outcomeResent, outcomeUnchanged, outcomeSkipped, outcomeFailed} {
		text = append(text, fmt.Sprintf("%d %s", r.counts[outcome], outcome))
	}
	would := ""
	if r.options.dry {
		would = "would be: "
	}
	r.say("%s%s", would, strings.Join(text, ", "))
	var wrong mistakes
	wrong.check(r.counts[outcomeFailed] == 0, "%d failed", r.counts[outcomeFailed])
	for _, id := range r.requested {
		wrong.check(r.seen[id], "there is no dead letter %s", id)
	}
	return wrong.err()
}

// catalogParts has a catalogue's service for a command, and its dependencies.
type catalogParts struct {
	service  *catalog.Service
	store    *postgres.Store
	pipeline *pipeline.Revision
}

// openCatalog does not connect yet. The cache is only invalidated, so its tag does not matter. If that fails, the API's
// consumer invalidates the document a little later.
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

// checkRevision returns an error if running APIs have another pipeline in force than this command would use.
func (p catalogParts) checkRevision(ctx context.Context) error {
	reports, err := p.store.Heartbeats(ctx, program.HeartbeatTTL)
	if err != nil {
		return fmt.Errorf("read heartbeats: %w", err)
	}
	var inForce []string
	for _, r := range reports {
		if r.Role == "api" {
			inForce = append(inForce, r.Revision)
		}
	}
	if len(inForce) == 0 || slices.Contains(inForce, p.pipeline.ID()) {
		return nil
	}
	return fmt.Errorf("the API has pipeline revision %s in force, and this command would use %s: "+
		"give it the API's VITRINE_PIPELINE_* variables", strings.Join(slices.Compact(inForce), ", "), p.pipeline.ID())
}
