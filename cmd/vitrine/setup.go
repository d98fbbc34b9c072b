package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/blob"
	"vitrine.io/pkg/config"
	"vitrine.io/pkg/fault"
	"vitrine.io/pkg/kafka"
	"vitrine.io/pkg/postgres"
	"vitrine.io/pkg/telemetry"
)

// SetupConfig is everything that can be said about setup.
type SetupConfig struct {
	Log      telemetry.LogConfig `envPrefix:"LOG_"`
	Setup    WaitConfig          `envPrefix:"SETUP_"`
	Postgres postgres.Config     `envPrefix:"POSTGRES_"`
	Kafka    kafka.Config        `envPrefix:"KAFKA_"`
	S3       blob.Config         `envPrefix:"S3_"`
}

// WaitConfig says how patient setup is.
type WaitConfig struct {
	Timeout time.Duration `env:"TIMEOUT" envDefault:"5m" desc:"how long setup waits for all servers together"`
}

// Validate returns every wrong field.
func (c WaitConfig) Validate() []fault.Field {
	if c.Timeout <= 0 {
		return []fault.Field{{Pointer: "TIMEOUT", Code: "out_of_range", Detail: "must be above zero"}}
	}
	return nil
}

func (c console) setupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "setup", Short: "Wait for the servers, migrate the database, make the topics and the bucket",
		Long: "Safe to repeat, and for any number to run at the same time. Configured like the other programs, by VITRINE_*\n" +
			"variables.",
		DisableFlagParsing: true, // config reads the arguments, as in every other program
		RunE: func(cmd *cobra.Command, args []string) error {
			program := config.Program{Name: "vitrine setup", About: cmd.Short + ".", Version: c.build.Version}
			if text, asked := config.Help[SetupConfig](program, args); asked {
				_, err := io.WriteString(c.stdout, text)
				return err
			}
			cfg, unknown, err := config.Load[SetupConfig](args, c.environ)
			if err != nil {
				return config.Hint(err, unknown)
			}
			log, _, stop, err := telemetry.NewLogger(cfg.Log, zapcore.AddSync(c.stderr), "setup", c.build, nil)
			if err != nil {
				return err
			}
			defer stop()
			kafka.BridgeLogger(log)
			ctx, cancel := context.WithTimeout(cmd.Context(), cfg.Setup.Timeout)
			defer cancel()
			return setup(ctx, cfg, log)
		},
	}
}

// setup makes everything that the programs need to find. What is there already stays as it is.
func setup(ctx context.Context, cfg SetupConfig, log *zap.Logger) error {
	topics, err := kafka.NewAdmin(cfg.Kafka)
	if err != nil {
		return err
	}
	bucket, err := blob.New(cfg.S3, prometheus.NewRegistry(), log.Named("blob"))
	if err != nil {
		return err
	}
	defer bucket.Close()
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"database", func(ctx context.Context) error { return postgres.Migrate(ctx, cfg.Postgres.DSN, log.Named("migrate")) }},
		{"topics", topics.EnsureTopics},
		{"bucket", bucket.EnsureBucket},
	} {
		waiting := func(err error) { log.Info("waiting", zap.String("for", step.what), zap.Error(err)) }
		if err := insist(ctx, step.do, waiting); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		log.Info("ready", zap.String("what", step.what))
	}
	return checkTopics(ctx, topics, log)
}

// checkTopics tells how existing topics differ from what is configured, and refuses those that can lose messages.
func checkTopics(ctx context.Context, topics *kafka.Admin, log *zap.Logger) error {
	differences, err := topics.Check(ctx)
	if err != nil {
		return fmt.Errorf("check topics: %w", err)
	}
	var danger error
	for _, d := range differences {
		log.Warn("topic differs", zap.String("detail", d.String()), zap.Bool("danger", d.Danger))
		if d.Danger {
			danger = fmt.Errorf("topic can lose messages: %s", d)
		}
	}
	return danger
}

// insist calls do until it succeeds, fails for another reason than a server that is not there yet, or ctx ends.
func insist(ctx context.Context, do func(context.Context) error, waiting func(error)) error {
	for {
		err := do(ctx)
		if err == nil || !fault.Is(err, fault.Unavailable) {
			return err
		}
		waiting(err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
}
