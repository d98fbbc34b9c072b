package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
)

// What can be waited for.
const (
	waitDatabase = "database"
	waitTopics   = "topics"
	waitBucket   = "bucket"
)

func (c console) waitCommand() *cobra.Command {
	return c.onServers("wait", "Wait until the servers are there and set up, and change nothing",
		"Returns when the database has every migration of this build and topics and bucket are there, or those of them that\n"+
			"VITRINE_SETUP_WAIT_FOR names. Topics that can lose messages are warned of: what refuses them is setup.\n"+
			"For whatever has to start after `vitrine setup`; to read is all the right that it needs.", await)
}

// await returns when everything is as setup leaves it. It only looks.
func await(ctx context.Context, cfg SetupConfig, log *zap.Logger) error {
	on, err := openServers(cfg, log)
	if err != nil {
		return err
	}
	defer on.bucket.Close()
	all := []step{
		{waitDatabase, func(ctx context.Context) error { return postgres.CheckSchema(ctx, cfg.Postgres) }},
		{waitTopics, on.topics.TopicsReady},
		{waitBucket, on.bucket.Ping},
	}
	all = slices.DeleteFunc(all, func(s step) bool { return !slices.Contains(cfg.Setup.WaitFor, s.what) })
	if err := insistAll(ctx, log, all); err != nil || !slices.Contains(cfg.Setup.WaitFor, waitTopics) {
		return err
	}
	// A setting that somebody has changed, in an emergency perhaps, must not keep new pods from starting.
	if err := checkTopics(ctx, on.topics, log); err != nil {
		log.Warn("topics", zap.Error(err))
	}
	return nil
}
