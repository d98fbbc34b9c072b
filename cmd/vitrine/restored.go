package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/platform/program"
	"vitrine.io/pkg/platform/telemetry"
)

// RestoredConfig is everything that can be said about restored.
type RestoredConfig struct {
	ReplayConfig
	Log telemetry.LogConfig `envPrefix:"LOG_"`
	S3  blob.Config         `envPrefix:"S3_"`
}

const (
	raiseBatch = 2000 // products whose versions are raised by one statement: some tenths of a second
	checkBatch = 100  // pictures that may be asked for at one time
	checkTell  = 10 * time.Second
	jumpLeast  = 1000
)

// restoredOptions are what can be said about restored beside the configuration.
type restoredOptions struct {
	force bool
	jump  int64
	rate  float64 // pictures a second
	file  string
}

func (c console) restoredCommand() *cobra.Command {
	var o restoredOptions
	cmd := &cobra.Command{
		Use: "restored", Args: cobra.NoArgs,
		Short: "Tell the database that it came back from a backup, before the programs start again",
		Long: `What caches, clients and messages know is newer than a database that came back from a backup. This makes it
unable to do harm: a new epoch makes every cached document and every ETag another one; ids and versions jump beyond whatever
was given out after the backup; and pictures whose objects are gone are asked for again.

Stop all programs before. They may start as soon as the log says so; looking for objects goes on meanwhile. Configured like
the API, by VITRINE_* variables. Safe to repeat, also when it ended half way.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.jump < jumpLeast {
				return fmt.Errorf("--jump: has to be at least %d", jumpLeast)
			}
			if o.rate <= 0 {
				return errors.New("--rate: has to be above 0")
			}
			return c.restored(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.force, "force", false, "although programs seem to be running")
	f.Int64Var(&o.jump, "jump", 1_000_000,
		"more than any table has grown, or any product has changed, since the backup; at least 1000")
	f.Float64Var(&o.rate, "rate", 20, "pictures asked for in a second at most, so that live traffic goes first")
	f.StringVar(&o.file, "config", "", "YAML file with the configuration")
	return cmd
}

func (c console) restored(ctx context.Context, o restoredOptions) (err error) {
	cfg, err := configured[RestoredConfig](c, o.file)
	if err != nil {
		return err
	}
	log, _, stop, err := telemetry.NewLogger(cfg.Log, zapcore.AddSync(c.stderr), "restored", c.build, nil)
	if err != nil {
		return err
	}
	defer stop()
	if err := restore(ctx, cfg, o, log); err != nil {
		log.Error("ended", zap.Error(err))
		return errLogged
	}
	return nil
}

// restore takes the steps. Whatever could keep it from the last one is looked at before the first.
func restore(ctx context.Context, cfg RestoredConfig, o restoredOptions, log *zap.Logger) (err error) {
	if err := postgres.CheckSchema(ctx, cfg.Postgres); err != nil {
		return fmt.Errorf("check schema (an older backup needs `vitrine setup` first): %w", err)
	}
	parts, stop, err := openCatalog(cfg.ReplayConfig, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := idle(ctx, parts.store, o.force, log); err != nil {
		return err
	}
	bucket, err := blob.New(cfg.S3, prometheus.NewRegistry(), log.Named("blob"))
	if err != nil {
		return err
	}
	defer bucket.Close()
	auditor := maintenance.NewAuditor(maintenance.AuditorDeps{
		Checkpoints: parts.store, References: parts.store, Bucket: bucket, Catalog: parts.service, Now: time.Now, Log: log,
	}, maintenance.AuditorConfig{}, prometheus.NewRegistry())
	if _, err := auditor.CheckRows(ctx, math.MaxInt64, 1, 0); err != nil { // there are none; it asks whose the bucket is
		return fmt.Errorf("check bucket: %w", err)
	}

	epoch, err := parts.store.Restored(ctx, o.jump)
	if err != nil {
		return fmt.Errorf("raise epoch: %w", err)
	}
	products, err := raiseVersions(ctx, parts.store, o.jump, log)
	if err != nil {
		return err
	}
	log.Info("the database is in another epoch: programs may start", zap.Int64("epoch", epoch), zap.Int64("jump", o.jump),
		zap.Int("products", products))
	return checkObjects(ctx, auditor, o.rate, log)
}

// idle is nil if no program has been heard of lately.
func idle(ctx context.Context, store *postgres.Store, force bool, log *zap.Logger) error {
	reports, err := store.Heartbeats(ctx, program.Silence)
	if err != nil {
		return fmt.Errorf("read heartbeats: %w", err)
	}
	if len(reports) == 0 {
		return nil
	}
	r := reports[0]
	log.Warn("programs seem to be running", zap.Int("instances", len(reports)), zap.String("first", r.Role+" "+r.Instance),
		zap.Duration("seen_ago", r.Silent))
	if force {
		return nil
	}
	return fmt.Errorf("%d programs were heard of within %s: stop them all; if it was the backup that said so, wait as long "+
		"or give --force", len(reports), program.Silence)
}

func raiseVersions(ctx context.Context, store *postgres.Store, jump int64, log *zap.Logger) (products int, err error) {
	var after catalog.ProductID
	for {
		var n int
		err := insist(ctx, func(ctx context.Context) (err error) {
			var last catalog.ProductID
			if n, last, err = store.RaiseVersions(ctx, after, raiseBatch, jump); err == nil {
				after = max(after, last)
			}
			return err
		}, waitingFor(log, "database"))
		if err != nil {
			return products, fmt.Errorf("raise versions after product %d: %w", after, err)
		}
		if products += n; n < raiseBatch {
			return products, nil
		}
		log.Info("versions raised", zap.Int("products", products))
	}
}

// checkObjects asks anew for each picture that is ready and whose objects are missing, one after the other in time.
func checkObjects(ctx context.Context, auditor *maintenance.Auditor, rate float64, log *zap.Logger) error {
	var after catalog.ImageID
	var pictures, missing int
	began := time.Now()
	told := began
	for {
		var checked maintenance.Checked
		delay := max(0, time.Duration(float64(missing)/rate*float64(time.Second))-time.Since(began))
		err := insist(ctx, func(ctx context.Context) (err error) {
			checked, err = auditor.CheckRows(ctx, after, checkBatch, delay)
			return err
		}, waitingFor(log, "objects"))
		if err != nil {
			return fmt.Errorf("check objects after picture %d: %w", after, err)
		}
		pictures, missing = pictures+checked.Images, missing+checked.Missing
		counts := []zap.Field{zap.Int("pictures", pictures), zap.Int("asked_again", missing)}
		if checked.Next == 0 {
			log.Info("restored", counts...)
			return nil
		}
		after = checked.Next
		if time.Since(told) >= checkTell {
			told = time.Now()
			log.Info("objects checked", append(counts, zap.Int64("up_to_image", int64(after)))...)
		}
	}
}
