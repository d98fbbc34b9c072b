package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/test/servers"
)

// database is the Postgres of a run: the one that runs share, or a primary and a standby of its own if the schedule promotes
// a standby. It is safe for concurrent use.
type database struct {
	backends *Backends
	schema   string
	pair     *servers.Pair // nil if there is no standby

	mu   sync.Mutex
	node *servers.Node // accepts writes
	url  string        // of the database on node, as a superuser
}

// openDatabase creates the schema of a run, and starts a pair if the run needs a standby. The proxies lead to its servers.
func openDatabase(ctx context.Context, backends *Backends, schema string, standby bool) (_ *database, err error) {
	d := &database{backends: backends, schema: schema, node: backends.Postgres, url: backends.DSN}
	primary, second := backends.Postgres.Addr, ""
	if standby {
		replication := backends.replication
		// The servers run until the end of the run, and stop after its context.
		d.pair, err = servers.StartPair(backends.getenv, func(primary string) string {
			replication.SetServer(primary)
			return replication.Addr
		})
		if err != nil {
			return nil, fmt.Errorf("start postgres with a standby: %w", err)
		}
		d.node, d.url = d.pair.Primary, d.pair.DSN
		primary, second = d.pair.Primary.Addr, d.pair.Standby.Addr
	}
	backends.proxies["to postgres"].SetServer(primary)
	backends.standby.SetServer(second)
	if err := d.exec(ctx, "CREATE SCHEMA "+schema); err != nil {
		return nil, errors.Join(err, d.close(ctx))
	}
	return d, nil
}

// server returns the server that accepts writes.
func (d *database) server() *servers.Node {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.node
}

// promote makes the standby the server that accepts writes. Its primary, which must have ended, is never started again.
func (d *database) promote(ctx context.Context) error {
	if err := d.pair.Promote(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.node, d.url = d.pair.Standby, d.pair.StandbyDSN
	return nil
}

// connect opens a connection to the schema, not through a proxy.
func (d *database) connect(ctx context.Context) (*pgx.Conn, error) {
	d.mu.Lock()
	url := d.url
	d.mu.Unlock()
	dsn, err := servers.WithSchema(url, d.schema)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	return conn, nil
}

// exec runs SQL statements on a new connection, in one transaction.
func (d *database) exec(ctx context.Context, statements string) error {
	conn, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.PgConn().Exec(ctx, statements).ReadAll(); err != nil {
		return fmt.Errorf("run %.40q: %w", statements, err)
	}
	return nil
}

// programsDSN returns the DSN for the programs, through the proxies: it names the standby, too, if there is one.
func (d *database) programsDSN() (string, error) {
	hosts := d.backends.proxies["to postgres"].Addr
	if d.pair != nil {
		hosts += "," + d.backends.standby.Addr
	}
	return servers.WithSchema(strings.Replace(d.url, d.node.Addr, hosts, 1), d.schema)
}

// close drops the schema, or stops the servers that only this run has.
func (d *database) close(ctx context.Context) error {
	if d.pair != nil {
		return d.pair.Stop()
	}
	return d.exec(ctx, "SET client_min_messages = warning; DROP SCHEMA IF EXISTS "+d.schema+" CASCADE")
}
