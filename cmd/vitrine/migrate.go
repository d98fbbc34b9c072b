package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/platform/telemetry"
)

// MigrateConfig is the configuration of migrate.
type MigrateConfig struct {
	Log      telemetry.LogConfig `envPrefix:"LOG_"`
	Postgres postgres.Config     `envPrefix:"POSTGRES_"`
}

func (c console) migrateCommand() *cobra.Command {
	migrate := &cobra.Command{
		Use: "migrate", Short: "Migrate the database's schema up or down, or list its migrations",
	}
	for _, step := range []struct{ use, short string }{
		{"up", "Apply every missing migration; safe to repeat and to run concurrently"},
		{"down", "Revert the newest migration, and delete its data"},
		{"status", "List every migration and when it was applied"},
	} {
		migrate.AddCommand(&cobra.Command{Use: step.use, Short: step.short, DisableFlagParsing: true,
			RunE: func(cmd *cobra.Command, args []string) error {
				return withConfig(c, "migrate "+cmd.Use, cmd.Short, args, func(cfg MigrateConfig) error { return c.migrate(cmd, cfg) })
			}})
	}
	return migrate
}

func (c console) migrate(cmd *cobra.Command, cfg MigrateConfig) error {
	log, _, stop, err := telemetry.NewLogger(cfg.Log, zapcore.AddSync(c.stderr), "migrate", c.build, nil)
	if err != nil {
		return err
	}
	defer stop()
	switch ctx := cmd.Context(); cmd.Use {
	case "up":
		return postgres.Migrate(ctx, cfg.Postgres, log)
	case "down":
		return postgres.MigrateDown(ctx, cfg.Postgres, log)
	default:
		all, err := postgres.MigrationStatus(ctx, cfg.Postgres)
		for _, m := range all {
			applied := "not yet"
			if !m.AppliedAt.IsZero() {
				applied = m.AppliedAt.UTC().Format(time.RFC3339)
			}
			fmt.Fprintf(c.stdout, "%5d  %-32s  %s\n", m.Version, m.Name, applied)
		}
		return err
	}
}
