package main

import (
	"context"
	"fmt"
	"time"

	"vitrine.io/pkg/adapter/controller"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/lifecycle"
	"vitrine.io/pkg/platform/program"
	"vitrine.io/pkg/platform/telemetry"
)

// Config is the configuration of the program.
type Config struct {
	program.Common
	Controller controller.Config       `envPrefix:"CONTROLLER_"`
	Pipeline   controller.BoundsConfig `envPrefix:"PIPELINE_"`
	Postgres   postgres.Config         `envPrefix:"POSTGRES_"`
}

// serve assembles the program and runs it until ctx ends.
func serve(ctx context.Context, cfg Config, app *program.App) error {
	controller.BridgeLogger(app.Log)
	api, err := controller.RESTConfig(cfg.Controller.Kubeconfig)
	if err != nil {
		return fmt.Errorf("VITRINE_CONTROLLER_KUBECONFIG: %w", err)
	}
	db, err := postgres.Open(cfg.Postgres, app.Log.Named("postgres"), app.Registry)
	if err != nil {
		return fmt.Errorf("open postgres: %w", err)
	}
	store := postgres.NewStore(db)
	c, err := controller.New(cfg.Controller, api, controller.Deps{
		Bounds: cfg.Pipeline.Bounds, Heartbeats: store, MaxAge: program.HeartbeatTTL, Now: time.Now,
		Backfills: &backfill.Manager{By: backfill.Resource, ManagerDeps: backfill.ManagerDeps{
			Backfills: store, Images: store, Sampler: store, Pipelines: store, Canaries: store,
		}},
		Registry: app.Registry, Log: app.Log.Named("controller"),
	})
	if err != nil {
		return err
	}
	// Postgres is no dependency: without it the controller still publishes.
	health := telemetry.NewHealth(cfg.Health, []telemetry.Dependency{{Name: "kubernetes", Check: c.Check}},
		time.Now, app.Registry, app.Log.Named("health"))
	return lifecycle.Run(ctx, cfg.Shutdown.Grace,
		app.Admin(health),
		lifecycle.Closer("postgres", db.Close),
		lifecycle.Part{Name: "health", Run: health.Run},
		lifecycle.Part{Name: "controller", Run: c.Run},
		lifecycle.Closer("drain", func() error {
			health.SetDraining()
			return nil
		}),
	)
}
