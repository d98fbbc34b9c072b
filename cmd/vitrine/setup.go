package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/platform/telemetry"
)

// SetupConfig is the configuration of setup and wait.
type SetupConfig struct {
	Log      telemetry.LogConfig `envPrefix:"LOG_"`
	Setup    WaitConfig          `envPrefix:"SETUP_"`
	Postgres postgres.Config     `envPrefix:"POSTGRES_"`
	Kafka    kafka.Config        `envPrefix:"KAFKA_"`
	S3       blob.Config         `envPrefix:"S3_"`
}

// WaitConfig says how long setup and wait try, and what wait waits for.
type WaitConfig struct {
	Timeout time.Duration `env:"TIMEOUT" envDefault:"5m" desc:"how long setup waits for all servers together"`
	WaitFor []string      `env:"WAIT_FOR" envDefault:"database,topics,bucket" desc:"what vitrine wait waits for"`
}

// Validate returns every wrong field.
func (c WaitConfig) Validate() []fault.Field {
	var check fault.Checker
	check.Positive("TIMEOUT", c.Timeout)
	for _, what := range c.WaitFor {
		check.Check(slices.Contains([]string{waitDatabase, waitTopics, waitBucket}, what), "WAIT_FOR", "unknown",
			"must be database, topics or bucket, not %s", what)
	}
	return check.Fields()
}

func (c console) setupCommand() *cobra.Command {
	return c.serverCommand("setup", "Wait for the servers, migrate the database, create the topics and the bucket",
		"Safe to repeat and to run concurrently.", setup)
}

// serverCommand returns a command that calls do with the configuration of database, topics and bucket, and with a deadline
// of VITRINE_SETUP_TIMEOUT. Errors of do are logged.
func (c console) serverCommand(
	name, short, long string, do func(context.Context, SetupConfig, *zap.Logger) error,
) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Long: long + "\nConfigured like the other programs, by VITRINE_* variables.",
		DisableFlagParsing: true, // config reads the arguments, as in every other program
		RunE: func(cmd *cobra.Command, args []string) error {
			return withConfig(c, name, short, args, func(cfg SetupConfig) error {
				return c.logged(cfg.Log, name, func(log *zap.Logger) error {
					kafka.BridgeLogger(log)
					ctx, cancel := context.WithTimeout(cmd.Context(), cfg.Setup.Timeout)
					defer cancel()
					return do(ctx, cfg, log)
				})
			})
		},
	}
}

// setup creates what the programs need, and leaves what exists unchanged. A database whose locale does not know letters
// outside ASCII is refused before anything is created. A bucket that belongs to another database is refused: each
// installation would delete the other's objects. A bucket for originals whose objects everyone can read is refused.
func setup(ctx context.Context, cfg SetupConfig, log *zap.Logger) error {
	on, err := openServers(cfg, log)
	if err != nil {
		return err
	}
	defer on.bucket.Close()
	steps := []step{
		{"locale", func(ctx context.Context) error { return postgres.CheckLocale(ctx, cfg.Postgres) }},
		{"database", func(ctx context.Context) error { return postgres.Migrate(ctx, cfg.Postgres, log.Named("migrate")) }},
		{"topics", on.topics.EnsureTopics},
		{"bucket", on.bucket.EnsureBucket},
		{"owner", func(ctx context.Context) error { return claim(ctx, cfg.Postgres, on.bucket, log) }},
	}
	if originals := on.bucket.Originals(); originals != nil {
		steps = append(steps,
			step{"bucket for originals", originals.EnsureBucket},
			step{"owner of originals", func(ctx context.Context) error { return claim(ctx, cfg.Postgres, originals, log) }},
			step{"privacy of originals", originals.CheckPrivate})
	}
	return runSteps(ctx, log, append(steps,
		step{"settings", func(ctx context.Context) error { return checkTopics(ctx, on.topics, log) }}))
}

// claim marks the bucket as this database's. fault.Conflict if it is marked as another's.
func claim(ctx context.Context, cfg postgres.Config, bucket *blob.Bucket, log *zap.Logger) error {
	db, err := postgres.Open(cfg, log.Named("postgres"), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	id, _, err := postgres.NewStore(db).Installation(ctx)
	if err != nil {
		return fmt.Errorf("read installation: %w", err)
	}
	owner, err := bucket.Claim(ctx, id)
	if err != nil {
		return fmt.Errorf("mark bucket: %w", err)
	}
	if owner != id {
		return fault.New(fault.Conflict, "bucket_of_another", fmt.Sprintf("the bucket belongs to installation %s and this "+
			"database is %s: give each its own bucket, or remove the object %s if that installation is gone",
			owner, id, blob.OwnerKey))
	}
	return nil
}

// servers has the clients that several steps use.
type servers struct {
	topics *kafka.Admin
	bucket *blob.Bucket
}

func openServers(cfg SetupConfig, log *zap.Logger) (servers, error) {
	topics, err := kafka.NewAdmin(cfg.Kafka)
	if err != nil {
		return servers{}, err
	}
	bucket, err := blob.New(cfg.S3, prometheus.NewRegistry(), log.Named("blob"))
	if err != nil {
		return servers{}, err
	}
	return servers{topics: topics, bucket: bucket}, nil
}

// step is one step of setup or wait.
type step struct {
	name string
	run  func(context.Context) error
}

// runSteps runs the steps in order, and retries each until it succeeds.
func runSteps(ctx context.Context, log *zap.Logger, steps []step) error {
	for _, s := range steps {
		if err := retry(ctx, s.run, logWaiting(log, s.name)); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		log.Info("ready", zap.String("what", s.name))
	}
	return nil
}

// logWaiting returns a function that logs why a step is retried.
func logWaiting(log *zap.Logger, what string) func(error) {
	return func(err error) { log.Info("waiting", zap.String("for", what), zap.Error(err)) }
}

// topicChecker compares topics with the configuration; *kafka.Admin does.
type topicChecker interface {
	Check(ctx context.Context) ([]kafka.Difference, error)
}

// checkTopics logs how existing topics differ from the configuration, and returns an error if one can lose messages. It
// returns fault.Unavailable if a broker does not know a topic yet, as may happen right after the topic was created.
func checkTopics(ctx context.Context, topics topicChecker, log *zap.Logger) error {
	differences, err := topics.Check(ctx)
	if err != nil {
		return fmt.Errorf("check topics: %w", err)
	}
	var danger error
	for _, d := range differences {
		if d.Missing() {
			return fault.New(fault.Unavailable, "topic_unknown", "a broker does not know the topic "+d.Topic+" yet")
		}
		log.Warn("topic differs", zap.String("detail", d.String()), zap.Bool("danger", d.Danger))
		if d.Danger {
			danger = fmt.Errorf("topic can lose messages: %s", d)
		}
	}
	return danger
}

// retry calls do every second until it succeeds, fails with another error than fault.Unavailable, or ctx ends.
func retry(ctx context.Context, do func(context.Context) error, waiting func(error)) error {
	for {
		err := do(ctx)
		if err == nil || !fault.Is(err, fault.Unavailable) {
			return err
		}
		waiting(err)
		if !backoff.Sleep(ctx, time.Second) {
			return err
		}
	}
}
