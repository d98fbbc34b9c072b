package servers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/foundation/process"
)

const (
	postgresUser = "vitrine"
	postgresDB   = "vitrine"
)

// postgresSettings make a fast server without durability. max_connections is for the tests of several packages at the same
// time, each with its own pools.
const postgresSettings = `
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
shared_buffers = 128MB
fsync = off
full_page_writes = off
synchronous_commit = off
wal_level = minimal
max_wal_senders = 0
jit = off
timezone = 'UTC'
log_min_messages = warning
`

// postgresBin returns the directory of initdb and postgres: that of the PATH, or of Debian's newest version below root.
func postgresBin(root string) (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err != nil { // a directory of links may lack pg_basebackup
			return "", fmt.Errorf("find postgres: %w", err)
		}
		return filepath.Dir(path), nil
	}
	found, err := filepath.Glob(filepath.Join(root, "usr/lib/postgresql/*/bin/initdb"))
	if err != nil || len(found) == 0 {
		return "", missing("PostgreSQL (initdb, postgres)")
	}
	newest := found[0]
	for _, path := range found[1:] {
		if postgresVersion(path) > postgresVersion(newest) {
			newest = path
		}
	}
	return filepath.Dir(newest), nil
}

// postgresVersion returns the version in /usr/lib/postgresql/15/bin/initdb, or 0.
func postgresVersion(initdb string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
	if err != nil {
		return 0
	}
	return n
}

// postgresCredential returns the user for Postgres, which refuses to run as root: then postgres, or the user nobody.
func postgresCredential(uid int) (*syscall.Credential, error) {
	cred, err := process.Unprivileged(uid, "postgres", "nobody")
	if err != nil {
		return nil, fmt.Errorf("run postgres: %w", err)
	}
	return cred, nil
}

// buildPostgres creates a cluster in dir and describes its server.
func buildPostgres(dir *workDir, n *process.ForkThread) (*server, error) {
	return newPostgres(dir, n, initdb, postgresSettings)
}

// postgresRun is how a program of Postgres is run.
type postgresRun struct {
	bin        string // directory of the programs
	data       string // directory of the cluster
	user       *syscall.Credential
	forkThread *process.ForkThread
}

// newPostgres creates a cluster in dir with create, adds settings to its configuration and describes its server.
func newPostgres(dir *workDir, n *process.ForkThread, create func(postgresRun) error, settings string) (*server, error) {
	bin, err := postgresBin("/")
	if err != nil {
		return nil, err
	}
	cred, err := postgresCredential(os.Getuid())
	if err != nil {
		return nil, err
	}
	home, err := dir.sub("postgres-", cred)
	if err != nil {
		return nil, err
	}
	listen, err := dir.reserve()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(home, "data")
	if err := create(postgresRun{bin, data, cred, n}); err != nil {
		return nil, err
	}
	if err := appendSettings(data, fmt.Sprintf("%sport = %d\n", settings, listen.Port)); err != nil {
		return nil, err
	}
	p := &process.Process{
		Name: "postgres", Argv: []string{filepath.Join(bin, "postgres"), "-D", data}, Dir: home,
		Log: filepath.Join(dir.path, filepath.Base(home)+".log"), User: cred,
		Quit:        syscall.SIGINT,  // "fast": ends sessions, does not wait for clients
		Orphan:      syscall.SIGQUIT, // "immediate": also ends its children and removes its shared memory
		StopTimeout: stopTimeout, ForkThread: n,
	}
	s := &server{name: "postgres", addrs: []string{listen.Addr()}, procs: []*process.Process{p}}
	s.ready = func(ctx context.Context) error { return ping(ctx, postgresDSN(s, postgresDB)) }
	s.alive = func(ctx context.Context) error { return ping(ctx, postgresDSN(s, "postgres")) }
	s.setup = func(ctx context.Context) error { return createDatabase(ctx, s) }
	return s, nil
}

// appendSettings adds settings to the file that overrides all others. A setting given twice has its last value.
func appendSettings(data, settings string) error {
	file, err := os.OpenFile(filepath.Join(data, "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0) // it keeps its owner
	if err == nil {
		_, err = file.WriteString(settings)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return fmt.Errorf("configure postgres: %w", err)
	}
	return nil
}

// initdb creates the files of a cluster. Every user of this machine may connect: it holds only test data.
func initdb(r postgresRun) error {
	return r.run("initdb", "--pgdata="+r.data, "--username="+postgresUser, "--auth=trust",
		"--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
}

// run runs a program until it ends.
func (r postgresRun) run(program string, args ...string) error {
	cmd := exec.Command(filepath.Join(r.bin, program), args...)
	cmd.Dir = filepath.Dir(r.data)
	cmd.SysProcAttr = process.Attr(r.user, syscall.SIGKILL)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := r.forkThread.Start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("run %s: %w\n%s", program, err, out.String())
	}
	return nil
}

func createDatabase(ctx context.Context, s *server) error {
	if err := execSQL(ctx, postgresDSN(s, "postgres"), "CREATE DATABASE "+postgresDB); err != nil {
		return err
	}
	// The extension is created once, in a schema of every search path, because concurrent CREATE EXTENSION statements of tests
	// would conflict.
	return execSQL(ctx, postgresDSN(s, postgresDB), createTrigrams)
}

const createTrigrams = "CREATE EXTENSION pg_trgm WITH SCHEMA public"

func postgresDSN(s *server, database string) string { return postgresURL(s.addrs[0], database) }

func postgresURL(addr, database string) string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", postgresUser, addr, database)
}

// WithSchema returns dsn with the search path schema, public.
func WithSchema(dsn, schema string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", fmt.Errorf("parse postgres url: %w", err)
	}
	q := u.Query()
	q.Set("search_path", schema+",public")
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// withDatabase returns dsn with another database.
func withDatabase(dsn, name string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", fmt.Errorf("parse postgres url: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}

func ping(ctx context.Context, dsn string) error {
	return execSQL(ctx, dsn, "SELECT 1")
}

// execSQL runs one statement on a new connection.
func execSQL(ctx context.Context, dsn, statement string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("run %q: %w", statement, err)
	}
	return nil
}
