package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/foundation/fault"
)

// Config says where the database is and what one process may ask of it. The environment's names are relative to
// VITRINE_POSTGRES_.
type Config struct {
	DSN             string        `env:"DSN" secret:"true" desc:"postgres://user:password@host:5432/database"`
	Username        string        `env:"USERNAME" desc:"user, instead of the DSN's"`
	Password        string        `env:"PASSWORD" secret:"true" desc:"password, instead of the DSN's; any characters, as they are"`
	ApplicationName string        `env:"APPLICATION_NAME" envDefault:"vitrine" desc:"name in pg_stat_activity"`
	MaxOpenConns    int           `env:"MAX_OPEN_CONNS" envDefault:"20" desc:"connections per process; the relay has two more"`
	ConnMaxLifetime time.Duration `env:"CONN_MAX_LIFETIME" envDefault:"30m" desc:"age at which one is replaced"`
	ConnMaxIdleTime time.Duration `env:"CONN_MAX_IDLE_TIME" envDefault:"5m" desc:"how long an unused connection is kept"`
	ConnectTimeout  time.Duration `env:"CONNECT_TIMEOUT" envDefault:"5s" desc:"longest wait for one new connection"`

	Timeout          time.Duration `env:"TIMEOUT" envDefault:"10s" desc:"longest one call may take, all waits included"`
	StatementTimeout time.Duration `env:"STATEMENT_TIMEOUT" envDefault:"5s" desc:"longest the server works on one statement"`
	LockTimeout      time.Duration `env:"LOCK_TIMEOUT" envDefault:"3s" desc:"longest a statement waits for a lock"`
	SlowQuery        time.Duration `env:"SLOW_QUERY" envDefault:"200ms" desc:"a slower statement is logged; 0: none is"`

	OutboxMaxTries int `env:"OUTBOX_MAX_TRIES" envDefault:"20" desc:"refusals after which a message is parked"`
}

// login returns whom and where to connect: the DSN, with Username and Password in the place of its own. They are set and not
// pasted in, so a password needs no escapes. The files that the DSN names are read.
func (c Config) login() (*pgx.ConnConfig, error) {
	conn, err := pgx.ParseConfig(c.DSN)
	if err != nil {
		return nil, fmt.Errorf("parse DSN: %w", err) // pgx has taken the password out
	}
	if c.Username != "" {
		conn.User = c.Username
	}
	if c.Password != "" {
		conn.Password = c.Password
	}
	return conn, nil
}

// Validate returns every wrong field, or nil.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	if c.DSN == "" {
		check.Add("DSN", "required", "give the database's address")
	} else if _, err := c.login(); err != nil {
		var file *fs.PathError
		if errors.As(err, &file) { // sslrootcert, sslcert, sslkey
			check.Add("DSN", "unreadable_file", "%v", file)
		} else { // the cause would quote the password
			check.Add("DSN", "malformed", "not a PostgreSQL URL or keyword=value string, or it names a file without a certificate")
		}
	}
	check.Range(c.MaxOpenConns >= 1, "MAX_OPEN_CONNS", "at least 1")
	check.Range(c.OutboxMaxTries >= 1, "OUTBOX_MAX_TRIES", "at least 1")
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"CONN_MAX_LIFETIME", c.ConnMaxLifetime}, {"CONN_MAX_IDLE_TIME", c.ConnMaxIdleTime},
		{"CONNECT_TIMEOUT", c.ConnectTimeout}, {"TIMEOUT", c.Timeout},
		{"STATEMENT_TIMEOUT", c.StatementTimeout}, {"LOCK_TIMEOUT", c.LockTimeout},
	} {
		check.Range(d.value >= time.Millisecond, d.name, "at least 1ms")
	}
	check.Range(c.SlowQuery >= 0, "SLOW_QUERY", "not below zero")
	return check.Fields()
}
