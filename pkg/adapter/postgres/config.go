package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/foundation/fault"
)

// Config is the address of the database and the limits of one process. The names of the variables are relative to
// VITRINE_POSTGRES_.
type Config struct {
	DSN             string        `env:"DSN" secret:"true" desc:"postgres://user:password@host:5432/database"`
	Username        string        `env:"USERNAME" desc:"user, instead of the DSN's"`
	Password        string        `env:"PASSWORD" secret:"true" desc:"password, instead of the DSN's; not escaped"`
	ApplicationName string        `env:"APPLICATION_NAME" envDefault:"vitrine" desc:"name in pg_stat_activity"`
	MaxOpenConns    int           `env:"MAX_OPEN_CONNS" envDefault:"20" desc:"maximum connections per process; the outbox has two more"`
	ConnMaxLifetime time.Duration `env:"CONN_MAX_LIFETIME" envDefault:"30m" desc:"age at which a connection is replaced"`
	ConnMaxIdleTime time.Duration `env:"CONN_MAX_IDLE_TIME" envDefault:"5m" desc:"how long an idle connection is kept"`
	ConnectTimeout  time.Duration `env:"CONNECT_TIMEOUT" envDefault:"5s" desc:"time limit of one connection attempt"`

	Timeout          time.Duration `env:"TIMEOUT" envDefault:"10s" desc:"time limit of one call, including all waits"`
	StatementTimeout time.Duration `env:"STATEMENT_TIMEOUT" envDefault:"5s" desc:"time limit of one statement on the server"`
	LockTimeout      time.Duration `env:"LOCK_TIMEOUT" envDefault:"3s" desc:"time limit of a wait for a lock"`
	SlowQuery        time.Duration `env:"SLOW_QUERY" envDefault:"200ms" desc:"statements slower than this are logged; 0: none"`

	EditQueue      int `env:"EDIT_QUEUE" envDefault:"32" desc:"changes of one product, running or waiting, in one process; more get 503"`
	OutboxMaxTries int `env:"OUTBOX_MAX_TRIES" envDefault:"20" desc:"refusals by Kafka after which a message is parked"`
}

// login parses the DSN and replaces its user and password by Username and Password, if these are set. They are not inserted
// into the text of the DSN, so a password needs no escapes. login reads the certificate files that the DSN names.
func (c Config) login() (*pgx.ConnConfig, error) {
	conn, err := pgx.ParseConfig(c.DSN)
	if err != nil {
		return nil, fmt.Errorf("parse DSN: %w", err) // the text has no password, because pgx removes it
	}
	if c.Username != "" {
		conn.User = c.Username
	}
	if c.Password != "" {
		conn.Password = c.Password
	}
	return conn, nil
}

// Validate returns every wrong value, by the name of its variable, or nil.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	if c.DSN == "" {
		check.Add("DSN", "required", "needs the address of the database")
	} else if _, err := c.login(); err != nil {
		var file *fs.PathError
		if errors.As(err, &file) { // sslrootcert, sslcert, sslkey
			check.Add("DSN", "unreadable_file", "%v", file)
		} else { // the cause is left out, because it may quote the password
			check.Add("DSN", "malformed", "not a PostgreSQL URL or keyword=value string, or it names a file without a certificate")
		}
	}
	check.Range(c.MaxOpenConns >= 1, "MAX_OPEN_CONNS", "at least 1")
	check.Range(c.EditQueue >= 1, "EDIT_QUEUE", "at least 1")
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
	check.Range(c.SlowQuery >= 0, "SLOW_QUERY", "0 or more")
	return check.Fields()
}
