package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"vitrine.io/pkg/foundation/fault"
)

// Config is the address of the database and the limits of one process. The names of the variables are relative to
// VITRINE_POSTGRES_.
type Config struct {
	DSN             string        `env:"DSN" secret:"true" desc:"postgres://user:password@host:5432/database; or host:port,host:port"`
	Username        string        `env:"USERNAME" desc:"user, instead of the DSN's"`
	Password        string        `env:"PASSWORD" secret:"true" desc:"password, instead of the DSN's; not escaped"`
	ApplicationName string        `env:"APPLICATION_NAME" envDefault:"vitrine" desc:"name in pg_stat_activity"`
	MaxOpenConns    int           `env:"MAX_OPEN_CONNS" envDefault:"20" desc:"maximum connections per process; lists, outbox and health checks have more"`
	ConnMaxLifetime time.Duration `env:"CONN_MAX_LIFETIME" envDefault:"30m" desc:"age at which a connection is replaced"`
	ConnMaxIdleTime time.Duration `env:"CONN_MAX_IDLE_TIME" envDefault:"5m" desc:"how long an idle connection is kept"`
	ConnectTimeout  time.Duration `env:"CONNECT_TIMEOUT" envDefault:"5s" desc:"time limit of making a connection, shared by the hosts of the DSN"`

	Timeout          time.Duration `env:"TIMEOUT" envDefault:"10s" desc:"time limit of one call, including all waits"`
	StatementTimeout time.Duration `env:"STATEMENT_TIMEOUT" envDefault:"5s" desc:"time limit of one statement on the server"`
	LockTimeout      time.Duration `env:"LOCK_TIMEOUT" envDefault:"3s" desc:"time limit of a wait for a lock"`
	SlowQuery        time.Duration `env:"SLOW_QUERY" envDefault:"200ms" desc:"statements slower than this are logged; 0: none"`

	EditQueue      int `env:"EDIT_QUEUE" envDefault:"32" desc:"changes of one product, running or waiting, in one process; more get 503"`
	OutboxMaxTries int `env:"OUTBOX_MAX_TRIES" envDefault:"20" desc:"refusals by Kafka after which a message is parked"`

	List ListConfig
}

// ListConfig has the limits of lists, whose statements may read much. Lists cannot use up the connections of other calls.
//
// MaxCost is in the planner's units: with the defaults of Postgres, a page read in sequence costs 1 and a page read at
// random 4, and 20000 are about 150 ms if all pages are in memory. A search among ten million products costs at most about
// 17000 by the better one of two plans: read all matches by the index of names, or read products in order until a page of
// 100 is full.
type ListConfig struct {
	MaxOpenConns     int           `env:"LIST_MAX_OPEN_CONNS" envDefault:"4" desc:"maximum connections per process for lists"`
	MaxWaiting       int           `env:"LIST_MAX_WAITING" envDefault:"32" desc:"lists that may wait for a connection; more get 503"`
	Wait             time.Duration `env:"LIST_WAIT" envDefault:"500ms" desc:"longest wait of a list for a connection; then 503"`
	StatementTimeout time.Duration `env:"LIST_STATEMENT_TIMEOUT" envDefault:"1s" desc:"time limit of a list's statement; then 503"`
	MaxCost          int           `env:"LIST_MAX_COST" envDefault:"20000" desc:"largest planner estimate of a search for a name; 0: any"`
}

// login parses the DSN and replaces its user and password by Username and Password, if these are set. They are not inserted
// into the text of the DSN, so a password needs no escapes. login reads the certificate files that the DSN names.
//
// Each host of the DSN is tried in turn for its share of ConnectTimeout, and one that accepts no writes, such as a standby,
// is not used: target_session_attrs is read-write, even if the DSN has another value.
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
	conn.ConnectTimeout = c.ConnectTimeout / time.Duration(hostCount(conn))
	conn.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	return conn, nil
}

// hostCount returns the number of servers that the DSN names. pgx lists a server twice if it may be asked without TLS, too.
func hostCount(conn *pgx.ConnConfig) int {
	hosts := map[string]bool{net.JoinHostPort(conn.Host, strconv.Itoa(int(conn.Port))): true}
	for _, other := range conn.Fallbacks {
		hosts[net.JoinHostPort(other.Host, strconv.Itoa(int(other.Port)))] = true
	}
	return len(hosts)
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

// Validate returns every wrong value, by the name of its variable, or nil.
func (c ListConfig) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.MaxOpenConns >= 1, "LIST_MAX_OPEN_CONNS", "at least 1")
	check.Range(c.MaxWaiting >= 0, "LIST_MAX_WAITING", "0 or more")
	check.Range(c.Wait >= time.Millisecond, "LIST_WAIT", "at least 1ms")
	check.Range(c.StatementTimeout >= time.Millisecond, "LIST_STATEMENT_TIMEOUT", "at least 1ms")
	check.Range(c.MaxCost >= 0, "LIST_MAX_COST", "0 or more")
	return check.Fields()
}
