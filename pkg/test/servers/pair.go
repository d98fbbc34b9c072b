package servers

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"vitrine.io/pkg/foundation/process"
)

// Pair is a Postgres whose commits wait until its standby has stored them.
type Pair struct {
	Primary, Standby *Node
	DSN, StandbyDSN  string // pgx URLs, as a superuser

	env *environment
}

// pairSettings let commits wait as soon as synchronous_standby_names is set, and a standby return quickly.
const pairSettings = replicationSettings + `
synchronous_commit = on
wal_retrieve_retry_interval = 200ms
`

// StartPair starts a Postgres and its standby, and returns when commits wait for the standby. through gets the primary's
// address, host:port, and returns the address at which the standby reaches it: that of a proxy of the caller.
func StartPair(getenv func(string) string, through func(primary string) string) (_ *Pair, err error) {
	env := newEnvironment(getenv)
	defer func() {
		if err != nil {
			err = errors.Join(err, env.stop())
		}
	}()
	primary, err := env.launch(func(dir *workDir, n *process.ForkThread) (*server, error) {
		return newPostgres(dir, n, initdb, pairSettings)
	})
	if err != nil {
		return nil, err
	}
	standby, err := env.launch(buildStandby(postgresURL(through(primary.addrs[0]), postgresDB)))
	if err != nil {
		return nil, err
	}
	p := &Pair{
		Primary: newNode(primary, 0, syscall.SIGQUIT, primary.ready), Standby: newNode(standby, 0, syscall.SIGQUIT, standby.ready),
		DSN: postgresDSN(primary, postgresDB), StandbyDSN: postgresDSN(standby, postgresDB), env: env,
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	// The standby has copied the primary's settings before this one, and does not wait for a standby once it is promoted.
	for _, statement := range []string{"ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"} {
		if err := execSQL(ctx, p.DSN, statement); err != nil {
			return nil, err
		}
	}
	return p, p.AwaitSync(ctx)
}

// AwaitSync waits until the standby has caught up, and commits wait for it.
func (p *Pair) AwaitSync(ctx context.Context) error {
	return until(ctx, func() error {
		var waits bool
		const query = `SELECT current_setting('synchronous_standby_names') = '*'
			AND EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync')`
		err := queryOne(ctx, p.DSN, &waits, query)
		if err == nil && !waits {
			err = errors.New("commits do not wait for the standby yet")
		}
		return err
	})
}

// Promote makes the standby accept writes, and returns when it does. The primary must have ended.
func (p *Pair) Promote(ctx context.Context) error { return promote(ctx, p.StandbyDSN) }

// Stop stops both servers and removes their files.
func (p *Pair) Stop() error {
	if err := errors.Join(p.Standby.Kill(), p.Primary.Kill(), p.env.stop()); err != nil {
		return fmt.Errorf("stop the pair: %w", err)
	}
	return nil
}
