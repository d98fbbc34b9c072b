package main

import (
	"context"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"vitrine.io/pkg/postgres"
)

func (c console) waitCommand() *cobra.Command {
	return c.onServers("wait", "Wait until the servers are there and set up, and change nothing",
		"Returns when the database has every migration of this build and topics and bucket are there. Topics that can lose\n"+
			"messages are warned of: what refuses them is setup. For whatever has to start after `vitrine setup`;\n"+
			"to read is all the right that it needs.", await)
}

// await returns when everything is as setup leaves it. It only looks.
func await(ctx context.Context, cfg SetupConfig, log *zap.Logger) error {
	on, err := openServers(cfg, log)
	if err != nil {
		return err
	}
	defer on.bucket.Close()
	err = insistAll(ctx, log, []step{
		{"database", func(ctx context.Context) error { return postgres.CheckSchema(ctx, cfg.Postgres) }},
		{"topics", on.topics.TopicsReady},
		{"bucket", on.bucket.Ping},
	})
	if err != nil {
		return err
	}
	// A setting that somebody has changed, in an emergency perhaps, must not keep new pods from starting.
	if err := checkTopics(ctx, on.topics, log); err != nil {
		log.Warn("topics", zap.Error(err))
	}
	return nil
}
