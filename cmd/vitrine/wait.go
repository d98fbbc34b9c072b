package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
)

// The values of VITRINE_SETUP_WAIT_FOR.
const (
	waitDatabase = "database"
	waitTopics   = "topics"
	waitBucket   = "bucket"
)

func (c console) waitCommand() *cobra.Command {
	return c.serverCommand("wait", "Wait until the servers are set up, and change nothing",
		"Returns when the database has every migration of this build and the topics and the bucket exist, or those of the three\n"+
			"that VITRINE_SETUP_WAIT_FOR names. Logs a warning for topics that can lose messages; setup refuses them.\n"+
			"For programs that start after `vitrine setup`. Needs only the right to read.", waitForServers)
}

// pingBuckets returns nil if the bucket and, if it is configured, that for originals exist.
func (s servers) pingBuckets(ctx context.Context) error {
	if err := s.bucket.Ping(ctx); err != nil {
		return err
	}
	if originals := s.bucket.Originals(); originals != nil {
		return originals.Ping(ctx)
	}
	return nil
}

// waitForServers returns when the servers are set up. It changes nothing.
func waitForServers(ctx context.Context, cfg SetupConfig, log *zap.Logger) error {
	on, err := openServers(cfg, log)
	if err != nil {
		return err
	}
	defer on.bucket.Close()
	all := []step{
		{waitDatabase, func(ctx context.Context) error { return postgres.CheckSchema(ctx, cfg.Postgres) }},
		{waitTopics, on.topics.TopicsReady},
		{waitBucket, on.pingBuckets},
	}
	all = slices.DeleteFunc(all, func(s step) bool { return !slices.Contains(cfg.Setup.WaitFor, s.name) })
	if err := runSteps(ctx, log, all); err != nil || !slices.Contains(cfg.Setup.WaitFor, waitTopics) {
		return err
	}
	// A changed setting of a topic must not keep new pods from starting.
	if err := checkTopics(ctx, on.topics, log); err != nil {
		log.Warn("topics differ from the configuration", zap.Error(err))
	}
	return nil
}
