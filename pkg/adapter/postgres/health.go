package postgres

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// healthTimeout is the time limit of one health check, and healthConnect that of its connection.
const (
	healthTimeout = 2 * time.Second
	healthConnect = 1500 * time.Millisecond
)

// HealthCheck checks the database on one connection of its own. It never waits for the connections of requests, so calls
// that use up the pool do not make the database look down.
type HealthCheck struct {
	db           *DB                    // with one connection
	main         *DB                    // of requests
	checked      atomic.Bool            // the schema is right; migrations are not reverted below a running program
	installation atomic.Pointer[string] // of the last success; nil: there was none
}

// NewHealthCheck returns a check of the database of db.
func NewHealthCheck(db *DB) (*HealthCheck, error) {
	cfg := db.cfg
	cfg.MaxOpenConns = 1
	cfg.Timeout = healthTimeout
	cfg.StatementTimeout = min(cfg.StatementTimeout, healthTimeout)
	cfg.ConnectTimeout = min(cfg.ConnectTimeout, healthConnect)
	cfg.SlowQuery = 0 // a slow check fails, which is logged
	cfg.ApplicationName += "-health"
	own, err := open("health", cfg, db.log, db.reg)
	if err != nil {
		return nil, err
	}
	return &HealthCheck{db: own, main: db}, nil
}

// selectWritable reads the settings at each check, because a connection may outlive a change of them.
const selectWritable = `
SELECT id::text || '.' || epoch AS installation,
    pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS read_only
FROM installation`

// Check returns nil if the database has this program's schema and accepts writes, else fault.Unavailable. It needs two
// seconds at most. One check may run at a time.
func (h *HealthCheck) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	if !h.checked.Load() {
		if err := checkSchema(ctx, h.db.pool); err != nil {
			return err
		}
		h.checked.Store(true)
	}
	type row struct {
		Installation string
		ReadOnly     bool
	}
	found, err := find[row](ctx, h.db, "health", errNoInstallation, selectWritable)
	if err != nil {
		return fmt.Errorf("check database: %w", err)
	}
	if found.ReadOnly {
		h.db.conns.discard()
		h.main.conns.discard() // reads on them would return old rows, and never fail
		h.main.lists.db.conns.discard()
		return fault.New(fault.Unavailable, "database_read_only", "the database accepts no writes")
	}
	h.installation.Store(&found.Installation)
	return nil
}

// Installation returns the installation's id and epoch as one name, as of the last successful check, or "" before it.
func (h *HealthCheck) Installation() string {
	if name := h.installation.Load(); name != nil {
		return *name
	}
	return ""
}

// Close closes the connection.
func (h *HealthCheck) Close() error { return h.db.Close() }
