package servers

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"vitrine.io/pkg/foundation/process"
)

// The environment variables that name running servers. Their values are private to this package and pkg/test/withservers.
const (
	envPostgres = "VITRINE_TEST_POSTGRES" // a pgx URL of a superuser
	envRedis    = "VITRINE_TEST_REDIS"    // host:port,host:port,host:port
	envKafka    = "VITRINE_TEST_KAFKA"    // host:port
	envS3       = "VITRINE_TEST_S3"       // a Bucket without a name, as JSON

	envKubernetes = "VITRINE_TEST_KUBERNETES" // a Kubernetes, as JSON
)

// environment holds the servers that a process has started, and those that its environment names.
type environment struct {
	getenv     func(string) string
	forkThread *process.ForkThread

	mu      sync.Mutex
	dir     *workDir
	started []*server
	stopped bool

	// Each starts its server on the first call and returns the variable's value.
	postgres, redis, kafka, s3, kubernetes func() (string, error)
}

// newEnvironment returns an environment that has not started any server.
func newEnvironment(getenv func(string) string) *environment {
	e := &environment{getenv: getenv, forkThread: process.NewForkThread()}
	e.postgres = e.once(envPostgres, buildPostgres, func(s *server) string { return postgresDSN(s, postgresDB) })
	e.redis = e.once(envRedis, buildRedis, func(s *server) string { return strings.Join(s.addrs, ",") })
	e.kafka = e.once(envKafka, buildKafka, func(s *server) string { return s.addrs[0] })
	e.s3 = e.once(envS3, buildS3, s3Value)
	e.kubernetes = e.once(envKubernetes, buildKubernetes, kubernetesValue)
	return e
}

// builder describes a server with files in dir, on free ports.
type builder func(dir *workDir, n *process.ForkThread) (*server, error)

// once returns a function that returns the variable's value. If that is empty, the first call starts a server, and the
// result is describe of it.
func (e *environment) once(variable string, build builder, describe func(*server) string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		if value := e.getenv(variable); value != "" {
			return value, nil
		}
		s, err := e.launch(build)
		if err != nil {
			return "", err
		}
		return describe(s), nil
	})
}

// launch starts a server, which stop will stop.
func (e *environment) launch(build builder) (*server, error) {
	dir, err := e.home()
	if err != nil {
		return nil, err
	}
	s, err := launch(func() (*server, error) { return build(dir, e.forkThread) })
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.started = append(e.started, s)
	return s, nil
}

// home returns the directory, which the first call creates.
func (e *environment) home() (*workDir, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return nil, errors.New("a server is requested after the servers were stopped")
	}
	if e.dir == nil {
		dir, err := newWorkDir(os.TempDir())
		if err != nil {
			return nil, err
		}
		e.dir = dir
	}
	return e.dir, nil
}

// crashed returns the logs of servers that have ended without a stop, which often explains a failed test.
func (e *environment) crashed() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var logs string
	for _, s := range e.started {
		logs += s.ended()
	}
	return logs
}

// stop stops all servers and removes their files.
func (e *environment) stop() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return nil
	}
	e.stopped = true
	errs := make([]error, len(e.started))
	var wg sync.WaitGroup
	for i, s := range e.started {
		wg.Go(func() { errs[i] = s.stop() })
	}
	wg.Wait()
	e.forkThread.Close()
	err := errors.Join(errs...)
	if e.dir != nil {
		if left := e.dir.remove(); left != nil {
			err = errors.Join(err, fmt.Errorf("remove servers' files: %w", left))
		}
	}
	return err
}
