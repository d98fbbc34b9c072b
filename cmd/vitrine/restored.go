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

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/platform/program"
	"vitrine.io/pkg/platform/telemetry"
)

// RestoredConfig is the configuration of restored.
type RestoredConfig struct {
	ReplayConfig
	Log telemetry.LogConfig `envPrefix:"LOG_"`
	S3  blob.Config         `envPrefix:"S3_"`
}

const (
	raiseBatch    = 2000 // products whose versions are raised by one statement: some tenths of a second
	checkBatch    = 1000 // images that are read at once
	checkLease    = time.Minute
	maxAhead      = time.Hour // how far ahead images are requested; far below the age at which a request fails
	progressEvery = 10 * time.Second
	maxFailed     = 1000 // images that cannot be checked, after which the command gives up
	minJump       = 1000
)

// restoredOptions are the flags of restored.
type restoredOptions struct {
	force bool
	jump  int64
	rate  float64 // images a second
	file  string
}

func (c console) restoredCommand() *cobra.Command {
	var o restoredOptions
	cmd := &cobra.Command{
		Use: "restored", Args: cobra.NoArgs,
		Short: "Prepare a database that was restored from a backup, before the programs start",
		Long: `Caches, clients and messages have data that is newer than a restored database. This command makes it harmless: a new
epoch invalidates every cached document and every ETag; ids and versions jump beyond those that were used after the backup;
and images whose objects are missing are requested again.

Stop all programs before. They may start as soon as the log says so, while this command still checks objects. Configured like
the API, by VITRINE_* variables. Safe to repeat, also after it was interrupted.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.jump < minJump {
				return fmt.Errorf("--jump: must be at least %d", minJump)
			}
			if o.rate <= 0 {
				return errors.New("--rate: must be above 0")
			}
			return c.restored(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.force, "force", false, "continue although programs seem to be running")
	f.Int64Var(&o.jump, "jump", 1_000_000,
		"above the rows of any table and the changes of any product since the backup; at least 1000")
	f.Float64Var(&o.rate, "rate", 20, "images requested a second at most, to leave capacity for live traffic")
	f.StringVar(&o.file, "config", "", "YAML file with the configuration")
	return cmd
}

func (c console) restored(ctx context.Context, o restoredOptions) error {
	cfg, err := loadConfig[RestoredConfig](c, o.file)
	if err != nil {
		return err
	}
	return c.logged(cfg.Log, "restored", func(log *zap.Logger) error { return restore(ctx, cfg, o, log) })
}

// restore runs all steps. It checks the preconditions of all of them before the first.
func restore(ctx context.Context, cfg RestoredConfig, o restoredOptions, log *zap.Logger) (err error) {
	if err := postgres.CheckSchema(ctx, cfg.Postgres); err != nil {
		return fmt.Errorf("check schema (an older backup needs `vitrine setup` first): %w", err)
	}
	parts, stop, err := openCatalog(cfg.ReplayConfig, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := checkStopped(ctx, parts.store, o.force, log); err != nil {
		return err
	}
	bucket, err := blob.New(cfg.S3, prometheus.NewRegistry(), log.Named("blob"))
	if err != nil {
		return err
	}
	defer bucket.Close()
	auditor := maintenance.NewAuditor(auditorDeps(parts, bucket, log),
		maintenance.AuditorConfig{Lease: checkLease, ToleratedShare: 1}, prometheus.NewRegistry())
	if _, err := auditor.CheckRows(ctx, math.MaxInt64, 1, nil); err != nil { // no rows: this checks only the bucket's owner
		return fmt.Errorf("check bucket: %w", err)
	}

	epoch, err := parts.store.Restored(ctx, o.jump)
	if err != nil {
		return fmt.Errorf("raise epoch: %w", err)
	}
	products, err := incrementVersions(ctx, parts.store, o.jump, log)
	if err != nil {
		return err
	}
	log.Info("the database has a new epoch: programs may start", zap.Int64("epoch", epoch), zap.Int64("jump", o.jump),
		zap.Int("products", products))
	return checkObjects(ctx, auditor, o.rate, log)
}

// auditorDeps returns the dependencies of an auditor of both buckets.
func auditorDeps(parts catalogParts, bucket *blob.Bucket, log *zap.Logger) maintenance.AuditorDeps {
	deps := maintenance.AuditorDeps{
		Checkpoints: parts.store, References: parts.store, Bucket: bucket, Catalog: parts.service, Now: time.Now, Log: log,
	}
	if originals := bucket.Originals(); originals != nil {
		deps.Originals = originals
	}
	return deps
}

// checkStopped returns an error if a program has written a heartbeat lately, unless force is set.
func checkStopped(ctx context.Context, store *postgres.Store, force bool, log *zap.Logger) error {
	reports, err := store.Heartbeats(ctx, program.HeartbeatTTL)
	if err != nil {
		return fmt.Errorf("read heartbeats: %w", err)
	}
	if len(reports) == 0 {
		return nil
	}
	r := reports[0]
	log.Warn("programs seem to be running", zap.Int("instances", len(reports)), zap.String("first", r.Role+" "+r.Instance),
		zap.Duration("seen_ago", r.Age))
	if force {
		return nil
	}
	return fmt.Errorf("%d programs have written heartbeats within %s: stop them all; if the heartbeats are from the backup, "+
		"wait as long or give --force", len(reports), program.HeartbeatTTL)
}

func incrementVersions(ctx context.Context, store *postgres.Store, jump int64, log *zap.Logger) (products int, err error) {
	var after catalog.ProductID
	for {
		var n int
		err := retry(ctx, func(ctx context.Context) (err error) {
			var last catalog.ProductID
			if n, last, err = store.IncrementVersions(ctx, after, raiseBatch, jump); err == nil {
				after = max(after, last)
			}
			return err
		}, logWaiting(log, "database"))
		if err != nil {
			return products, fmt.Errorf("raise versions after product %d: %w", after, err)
		}
		if products += n; n < raiseBatch {
			return products, nil
		}
		log.Info("versions raised", zap.Int("products", products))
	}
}

// rowChecker checks a batch of images. *maintenance.Auditor implements and documents it.
type rowChecker interface {
	CheckRows(ctx context.Context, after catalog.ImageID, limit int, delay func(n int) time.Duration,
	) (maintenance.Checked, error)
}

// checkObjects requests each ready image whose objects are missing again, at most rate a second. It goes on when single
// images cannot be checked, and returns an error at the end.
func checkObjects(ctx context.Context, auditor rowChecker, rate float64, log *zap.Logger) error {
	var after catalog.ImageID
	var images, missing, failed int
	spacing := time.Duration(float64(time.Second) / rate)
	logged, due := time.Now(), time.Now() // due: when the next request is due
	for {
		if ahead := time.Until(due); ahead > maxAhead && !backoff.Sleep(ctx, ahead-maxAhead) {
			return ctx.Err()
		}
		var checked maintenance.Checked
		first := max(0, time.Until(due))
		delay := func(n int) time.Duration { return first + time.Duration(n)*spacing }
		err := retry(ctx, func(ctx context.Context) (err error) {
			checked, err = auditor.CheckRows(ctx, after, checkBatch, delay)
			return err
		}, logWaiting(log, "objects"))
		if err != nil {
			return fmt.Errorf("check objects after image %d: %w", after, err)
		}
		due = time.Now().Add(delay(checked.Missing))
		images, missing, failed = images+checked.Images, missing+checked.Missing, failed+checked.Failed
		counts := []zap.Field{zap.Int("images", images), zap.Int("requested_again", missing), zap.Int("failed", failed)}
		if failed > maxFailed {
			return fmt.Errorf("check objects: %d of the first %d images could not be checked: the log says why", failed, images)
		}
		if checked.Next == 0 {
			log.Info("restored", counts...)
			break
		}
		after = checked.Next
		if time.Since(logged) >= progressEvery {
			logged = time.Now()
			log.Info("objects checked", append(counts, zap.Int64("up_to_image", int64(after)))...)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d images could not be checked: the log says why; the auditor checks them again within its next passes",
			failed)
	}
	return nil
}
