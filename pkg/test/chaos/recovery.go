package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Timeouts after the faults have ended. A consumer group keeps a dead member for ten seconds, and a broker needs some
// seconds to start; a busy machine needs longer.
const (
	healTimeout     = 240 * time.Second
	stallTimeout    = 120 * time.Second // without progress
	outcomeTimeout  = 10 * time.Minute  // in total
	deletionTimeout = 120 * time.Second
	pollInterval    = 250 * time.Millisecond
)

// heal ends all faults, starts all stopped servers and programs, and returns when they are ready. The findings are programs
// that exited unexpectedly.
func (s *System) heal(ctx context.Context) ([]Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	var findings []Finding
	s.backends.heal()
	nodes := append(append([]node{}, s.nodes()...), s.database.server(), s.backends.MinIO)
	for _, n := range nodes {
		if err := errors.Join(n.Resume(), n.Start()); err != nil {
			return nil, err
		}
	}
	for _, n := range nodes {
		if err := n.Await(ctx); err != nil {
			return nil, err
		}
	}
	for {
		err := s.backends.RedisReady(ctx)
		if err == nil {
			break
		}
		if !sleep(ctx, pollInterval) {
			return nil, fmt.Errorf("wait for redis: %w", err)
		}
	}
	for _, p := range s.programs {
		_ = p.Resume()
		for _, state := range p.UnexpectedExits() {
			findings = append(findings, Finding{"programs exit only on request", p.Name + ": " + state})
		}
		if err := p.Start(); err != nil {
			return findings, err
		}
	}
	return findings, s.Ready(ctx)
}

// awaitSettled waits until no work is pending. It returns an error that names the pending work after stallTimeout without
// progress, or after outcomeTimeout. note is called with each new state.
func (s *System) awaitSettled(ctx context.Context, note func(string)) error {
	idlePolls, before, moved := 0, "", time.Now()
	deadline := moved.Add(outcomeTimeout)
	for {
		err := s.pendingWork(ctx)
		if err == nil {
			if idlePolls++; idlePolls == 3 { // one poll can miss work that moves between Postgres and Kafka
				return nil
			}
		} else {
			idlePolls = 0
			if left := err.Error(); left != before {
				before, moved = left, time.Now()
				note("settling: " + left)
			}
		}
		if !sleep(ctx, pollInterval) {
			return ctx.Err()
		}
		if now := time.Now(); err != nil && (now.Sub(moved) > stallTimeout || now.After(deadline)) {
			return fmt.Errorf("no progress, pending: %w", err)
		}
	}
}

// pendingWork returns an error that describes the pending work, or nil if there is none.
func (s *System) pendingWork(ctx context.Context) error {
	conn, err := s.database.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var outbox, working, backfills int
	const query = `SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM image_jobs),
		(SELECT count(*) FROM backfills WHERE state IN ('approved', 'running')) + (SELECT count(*) FROM backfill_events)`
	if err := conn.QueryRow(ctx, query).Scan(&outbox, &working, &backfills); err != nil {
		return fmt.Errorf("count pending work: %w", err)
	}
	if outbox+working+backfills > 0 {
		return fmt.Errorf("%d rows in the outbox, %d images in progress, %d backfills and events of backfills", outbox, working,
			backfills)
	}
	lag, err := s.lag()
	if err == nil && lag > 0 {
		err = fmt.Errorf("%d records not consumed", lag)
	}
	return err
}

// readyUsers returns the number of users with a ready image.
func (s *System) readyUsers(ctx context.Context) (users int, err error) {
	conn, err := s.database.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	const query = `SELECT count(DISTINCT p.user_id) FROM images i JOIN products p ON p.id = i.product_id
		WHERE i.status = 'ready' AND p.deleted_at IS NULL`
	if err := conn.QueryRow(ctx, query).Scan(&users); err != nil {
		return 0, fmt.Errorf("count users: %w", err)
	}
	return users, nil
}

// runDeletions makes all scheduled deletions due, as if a day had passed, and waits until all are done.
func (s *System) runDeletions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, deletionTimeout)
	defer cancel()
	conn, err := s.database.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, `UPDATE scheduled_deletions SET due_at = now() WHERE started_at IS NULL`); err != nil {
		return fmt.Errorf("make scheduled deletions due: %w", err)
	}
	for {
		var left int
		if err := conn.QueryRow(ctx, `SELECT count(*) FROM scheduled_deletions`).Scan(&left); err != nil {
			return fmt.Errorf("count scheduled deletions: %w", err)
		}
		if left == 0 {
			return nil
		}
		if !sleep(ctx, pollInterval) {
			return fmt.Errorf("%d scheduled deletions are left after %s", left, deletionTimeout)
		}
	}
}
