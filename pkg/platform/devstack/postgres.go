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
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/foundation/process"
)

// PostgresConfig says where a Postgres server keeps its data and listens.
type PostgresConfig struct {
	Dir  string // made, with a new cluster in it, if it is not there; its parents must be open to Postgres' user
	Addr string // host:port; port 0 is any free one, empty is 127.0.0.1:0
	Log  string // file
}

// Postgres is a real server, in a process of its own that dies with this one.
type Postgres struct {
	process *process.Process
	addr    string
}

// StartPostgres starts the server on its directory and returns when it answers. It runs as an unprivileged user if this
// process is root, since it refuses to be root itself.
func StartPostgres(ctx context.Context, cfg PostgresConfig, forkThread *process.ForkThread) (*Postgres, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	cred, err := PostgresUser(os.Getuid())
	if err != nil {
		return nil, err
	}
	if pid := usedBy(cfg.Dir); pid != 0 {
		return nil, fmt.Errorf("start postgres: %s is in use by the server with process id %d", cfg.Dir, pid)
	}
	if _, err := freeAddr(ctx, cmp.Or(cfg.Addr, anyPort)); err != nil { // before the seconds that initdb needs
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	if err := initdb(bin, cfg.Dir, cred, forkThread); err != nil {
		return nil, err
	}
	// A port that the kernel chooses may go to an outgoing connection, so it is chosen as late as possible.
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
		Quit:   syscall.SIGINT,  // "fast": ends sessions, waits for nobody
		Orphan: syscall.SIGQUIT, // "immediate": its own children go with it
	}}
	if err := p.process.Start(); err != nil {
		return nil, err
	}
	if err := p.await(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// DSN returns the address of the database vitrine.
func (p *Postgres) DSN() string { return p.dsn("vitrine") }

func (p *Postgres) dsn(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User("vitrine"), Host: p.addr, Path: database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Exited is closed when the server has ended.
func (p *Postgres) Exited() <-chan struct{} { return p.process.Exited() }

// Close stops the server in good order.
func (p *Postgres) Close() error { return p.process.Stop() }

// await waits until the server answers, and makes the database if it is new.
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
	var there bool
	err = conn.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_database WHERE datname = 'vitrine'").Scan(&there)
	if err != nil || there {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE vitrine")
	return err
}

// usedBy returns the process id of a server that runs on dir, or 0. The file that names it outlives a crash, so the process
// is looked at, too.
func usedBy(dir string) int {
	text, _ := os.ReadFile(filepath.Join(dir, "postmaster.pid")) // none: nobody
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || string(name) != "postgres\n" {
		return 0
	}
	return pid
}

// initdb makes a cluster in dir, unless there is one. It trusts whoever connects, which only this machine can.
func initdb(bin, dir string, cred *syscall.Credential, forkThread *process.ForkThread) error {
	if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make postgres' directory: %w", err)
	}
	if cred != nil {
		if err := os.Chown(dir, int(cred.Uid), int(cred.Gid)); err != nil {
			return fmt.Errorf("give postgres its directory: %w", err)
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

// postgresBin finds the directory with initdb and postgres: in the PATH, or the newest of Debian's.
func postgresBin() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is well formed
	if len(found) == 0 {
		return "", errors.New("PostgreSQL is missing (initdb, postgres): on Debian or Ubuntu, apt-get install postgresql")
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(postgresVersion(a), postgresVersion(b)) })
	return filepath.Dir(newest), nil
}

// postgresVersion is the number in /usr/lib/postgresql/15/bin/initdb, or 0.
func postgresVersion(initdb string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
	return n
}

// PostgresUser returns whom Postgres is to run as when this process runs as uid: nil for ourselves; for root, the user
// postgres, or nobody.
func PostgresUser(uid int) (*syscall.Credential, error) {
	cred, err := process.Unprivileged(uid, "postgres", "nobody")
	if err != nil {
		return nil, fmt.Errorf("run postgres: %w", err)
	}
	return cred, nil
}

// freeAddr returns addr with a port that is free now; a taken one is an error that names it.
func freeAddr(ctx context.Context, addr string) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
