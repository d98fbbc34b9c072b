package devstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/foundation/process"
)

// PostgresConfig configures a Postgres server.
type PostgresConfig struct {
	Dir  string // data directory, created with a new cluster if missing; Postgres' user must be able to enter its parents
	Addr string // host:port; port 0 is any free one, empty is 127.0.0.1:0
	Log  string // file
}

// Postgres is a real server, in a child process that ends with this process.
type Postgres struct {
	process *process.Process
	addr    string
}

// StartPostgres starts the server and returns when it accepts connections. If this process runs as root, the server runs
// as an unprivileged user, because Postgres does not run as root. If the server does not start, the error contains the
// end of its log.
func StartPostgres(ctx context.Context, cfg PostgresConfig, forkThread *process.ForkThread) (*Postgres, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	cred, err := PostgresUser(os.Getuid())
	if err != nil {
		return nil, err
	}
	if _, err := freeAddr(ctx, cmp.Or(cfg.Addr, anyPort)); err != nil { // before initdb, which needs seconds
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	if err := initdb(bin, cfg.Dir, cred, forkThread); err != nil {
		return nil, err
	}
	// An outgoing connection may take a port that the kernel has chosen, so it is chosen as late as possible.
	addr, err := freeAddr(ctx, cmp.Or(cfg.Addr, anyPort))
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	p := &Postgres{addr: addr, process: &process.Process{
		Name: "postgres", Dir: cfg.Dir, Log: cfg.Log, User: cred, ForkThread: forkThread, StopTimeout: 15 * time.Second,
		Argv: []string{
			filepath.Join(bin, "postgres"), "-D", cfg.Dir, "-c", "listen_addresses=" + host, "-c", "port=" + port,
			"-c", "unix_socket_directories=", "-c", "timezone=UTC", "-c", "jit=off",
		},
		Quit:   syscall.SIGINT,  // "fast": ends sessions, does not wait for clients
		Orphan: syscall.SIGQUIT, // "immediate": also ends its children
	}}
	if err := p.process.Start(); err != nil {
		return nil, err
	}
	if err := p.await(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// DSN returns the pgx URL of the database vitrine.
func (p *Postgres) DSN() string { return p.dsn("vitrine") }

func (p *Postgres) dsn(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User("vitrine"), Host: p.addr, Path: database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Exited is closed when the server has ended.
func (p *Postgres) Exited() <-chan struct{} { return p.process.Exited() }

// Close shuts the server down, and kills it after 15 s, which is an error.
func (p *Postgres) Close() error { return p.process.Stop() }

// await waits until the server accepts connections, and creates the database if it is missing.
func (p *Postgres) await(ctx context.Context) error {
	for {
		err := p.createDatabase(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start postgres: %w\n%s", err, p.process.Tail())
		case <-p.process.Exited():
			return fmt.Errorf("start postgres: %s\n%s", p.process.State(), p.process.Tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (p *Postgres) createDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.dsn("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var exists bool
	err = conn.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_database WHERE datname = 'vitrine'").Scan(&exists)
	if err != nil || exists {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE vitrine")
	return err
}

// initdb creates a cluster in dir, unless there is one. The cluster trusts all connections, which come from this machine
// only.
func initdb(bin, dir string, cred *syscall.Credential, forkThread *process.ForkThread) error {
	if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create postgres' directory: %w", err)
	}
	if cred != nil {
		if err := os.Chown(dir, int(cred.Uid), int(cred.Gid)); err != nil {
			return fmt.Errorf("change owner of postgres' directory: %w", err)
		}
	}
	cmd := exec.Command(filepath.Join(bin, "initdb"),
		"--pgdata="+dir, "--username=vitrine", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
	cmd.Dir = dir
	cmd.SysProcAttr = process.Attr(cred, syscall.SIGKILL)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := forkThread.Start(cmd); err != nil {
		return fmt.Errorf("start initdb: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out.String())
	}
	return nil
}

// postgresBin returns the directory of initdb and postgres. It looks in PATH, and then for the newest version of Debian's
// packages.
func postgresBin() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is well formed
	if len(found) == 0 {
		return "", errors.New("PostgreSQL is missing (initdb, postgres): on Debian or Ubuntu, apt-get install postgresql")
	}
	return filepath.Dir(slices.Max(found)), nil // all supported versions have two digits
}

// PostgresUser returns the user for Postgres when this process runs as uid: nil, the same user, unless uid is 0; then the
// user postgres or, if it does not exist, the user nobody. It returns an error if neither exists.
func PostgresUser(uid int) (*syscall.Credential, error) {
	cred, err := process.Unprivileged(uid, "postgres", "nobody")
	if err != nil {
		return nil, fmt.Errorf("run postgres: %w", err)
	}
	return cred, nil
}

// freeAddr returns addr with a port that is free now. The error for a port in use names it.
func freeAddr(ctx context.Context, addr string) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
