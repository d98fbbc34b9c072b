package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// How long things may take once all is healed. A dead member of a group counts as alive for ten seconds, and a broker needs
// some to start; on a busy machine all of that takes longer. What goes on after this will go on for ever.
const (
	healTimeout   = 240 * time.Second
	stallTimeout = 120 * time.Second // without anything's happening
	settleTimeout    = 10 * time.Minute  // with it
	deletionTimeout  = 120 * time.Second
	pollInterval     = 250 * time.Millisecond
)

// heal ends all faults, starts what is down, and returns when everything says that it is ready.
func (s *System) heal(ctx context.Context) ([]Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	var findings []Finding
	for _, p := range s.backends.proxies {
		p.Heal()
	}
	nodes := append(append([]node{}, s.nodes()...), s.backends.Postgres, s.backends.MinIO)
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
			findings = append(findings, Finding{"no program ends by itself", p.Name + ": " + state})
		}
		if err := p.Start(); err != nil {
			return findings, err
		}
	}
	return findings, s.Ready(ctx)
}

// awaitSettled waits until nothing is left to do, as long as less and less is. The error says what still is when patience is
// over. note is told of each step.
func (s *System) awaitSettled(ctx context.Context, note func(string)) error {
	calm, before, moved := 0, "", time.Now()
	deadline := moved.Add(settleTimeout)
	for {
		err := s.pendingWork(ctx)
		if err == nil {
			if calm++; calm == 3 { // three times in a row: nothing is just between two places
				return nil
			}
		} else {
			calm = 0
			if left := err.Error(); left != before {
				before, moved = left, time.Now()
				note("settling: " + left)
			}
		}
		if !sleep(ctx, pollInterval) {
			return ctx.Err()
		}
		if now := time.Now(); err != nil && (now.Sub(moved) > stallTimeout || now.After(deadline)) {
			return fmt.Errorf("nothing happens any more, and there are %w", err)
		}
	}
}

// pendingWork says what is left to do, or nil.
func (s *System) pendingWork(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var outbox, working int
	const query = `SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM images WHERE job_state <> 'idle')`
	if err := conn.QueryRow(ctx, query).Scan(&outbox, &working); err != nil {
		return fmt.Errorf("look whether all is done: %w", err)
	}
	if outbox+working > 0 {
		return fmt.Errorf("%d rows in the outbox, %d pictures in work", outbox, working)
	}
	lag, err := s.lag()
	if err == nil && lag > 0 {
		err = fmt.Errorf("%d records to be dealt with", lag)
	}
	return err
}

// runDeletions lets all intents come due at once, as if a day had passed, and waits until none is left.
func (s *System) runDeletions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, deletionTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, `UPDATE scheduled_deletions SET due_at = now() WHERE started_at IS NULL`); err != nil {
		return fmt.Errorf("let intents come due: %w", err)
	}
	for {
		var left int
		if err := conn.QueryRow(ctx, `SELECT count(*) FROM scheduled_deletions`).Scan(&left); err != nil {
			return fmt.Errorf("count intents: %w", err)
		}
		if left == 0 {
			return nil
		}
		if !sleep(ctx, pollInterval) {
			return fmt.Errorf("%d intents are left after %s", left, deletionTimeout)
		}
	}
}
