package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.yaml.in/yaml/v2"

	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/process"
	"vitrine.io/pkg/platform/devstack"
)

// startTimeout is the longest time until a program is ready after its start, or Postgres with a new cluster.
const startTimeout = time.Minute

// stack has everything that dev runs. It is closed in the reverse order of its start.
type stack struct {
	console
	options    devOptions
	log        *zap.Logger
	client     *http.Client
	gallery    *gallery
	forkThread *process.ForkThread
	postgres   *devstack.Postgres
	kafka      *devstack.Kafka
	redis      *devstack.Redis
	media      *devstack.S3
	programs   []*process.Process
	closers    []func() error
}

func (s *stack) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*startTimeout)
	defer cancel()
	s.forkThread = process.NewForkThread()
	s.onClose(func() error { s.forkThread.Close(); return nil })
	data := s.options.data
	var err error
	s.say("starting postgres (a new data directory takes a few seconds)")
	s.postgres, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{
		Dir: filepath.Join(data, "postgres"), Log: filepath.Join(data, "log", "postgres.log"),
	}, s.forkThread)
	if err != nil {
		return err
	}
	s.onClose(s.postgres.Close)
	s.say("starting kafka, redis and s3 in this process")
	if s.kafka, err = devstack.StartKafka(devstack.KafkaConfig{DataDir: filepath.Join(data, "kafka")}, s.log); err != nil {
		return err
	}
	s.onClose(func() error { s.kafka.Close(); return nil })
	if s.redis, err = devstack.StartRedis(""); err != nil {
		return err
	}
	s.onClose(func() error { s.redis.Close(); return nil })
	if s.media, err = devstack.StartS3(devstack.S3Config{Dir: filepath.Join(data, "s3"), Addr: s.options.media}); err != nil {
		return err
	}
	s.onClose(s.media.Close)
	samples, err := devstack.Serve("samples", s.options.samples, s.gallery)
	if err != nil {
		return err
	}
	s.onClose(samples.Close)
	if err := writePipeline(filepath.Join(data, "pipeline.yaml")); err != nil {
		return err
	}
	s.say("setting up database, topics and bucket")
	if err := s.setUp(ctx); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return s.launch(ctx)
}

// launch starts the programs, each when the one before is ready.
func (s *stack) launch(ctx context.Context) error {
	for _, p := range []struct{ name, admin string }{{"worker", s.options.worker}, {"api", s.options.api}} {
		s.say("starting %s", p.name)
		process := &process.Process{
			Name: p.name, Argv: []string{filepath.Join(s.options.bin, p.name)}, Dir: s.options.data,
			Env: append(s.environment(), "VITRINE_ADMIN_ADDR="+p.admin),
			Log: filepath.Join(s.options.data, "log", p.name+".log"), Quit: syscall.SIGTERM, Orphan: syscall.SIGTERM,
			StopTimeout: startTimeout + 15*time.Second, ForkThread: s.forkThread, // above VITRINE_SHUTDOWN_GRACE
		}
		if err := process.Start(); err != nil {
			return err
		}
		s.programs = append(s.programs, process)
		s.onClose(process.Stop)
		if err := s.awaitReady(ctx, "http://"+p.admin+"/readyz", process); err != nil {
			return err
		}
	}
	return nil
}

// wait returns nil when ctx ends, or an error when a program or Postgres exits.
func (s *stack) wait(ctx context.Context) error {
	ended := make(chan error, len(s.programs)+1)
	watch := func(name string, exited <-chan struct{}, state func() string) {
		go func() {
			select {
			case <-exited:
				ended <- fmt.Errorf("%s ended: %s", name, state())
			case <-ctx.Done():
			}
		}()
	}
	for _, p := range s.programs {
		watch(p.Name, p.Exited(), func() string { return p.State() + "\n" + p.Tail() })
	}
	watch("postgres", s.postgres.Exited(), func() string { return "see log/postgres.log" })
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

func (s *stack) onClose(closer func() error) { s.closers = append(s.closers, closer) }

func (s *stack) close() {
	var errs []error
	for _, closer := range slices.Backward(s.closers) {
		errs = append(errs, closer())
	}
	s.closers = nil // a second close does nothing
	if err := errors.Join(errs...); err != nil {
		s.say("while stopping: %v", err)
	}
}

// awaitReady requests url until it responds with 200, the process has ended, or ctx ends.
func (s *stack) awaitReady(ctx context.Context, url string, p *process.Process) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := s.client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.Name, ctx.Err(), p.Tail())
		case <-p.Exited():
			return fmt.Errorf("%s ended: %s\n%s", p.Name, p.State(), p.Tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// writePipeline writes the default pipeline. It keeps an existing file, which the developer may have edited, but for fields
// of earlier builds that are bounds now: those of dev are in the environment. The file as it was is then path with .bak.
func writePipeline(path string) error {
	document := pipeline.Default().Document()
	present, err := os.ReadFile(path)
	if err == nil {
		var changed bool
		if document, changed = withoutMoved(present); !changed {
			return nil // the programs report what is wrong with it
		}
		err = os.Rename(path, path+".bak")
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("keep pipeline: %w", err)
	}
	if err := os.WriteFile(path, document, 0o644); err != nil { //nolint:gosec // no secret in it
		return fmt.Errorf("write pipeline: %w", err)
	}
	return nil
}

// withoutMoved returns a pipeline without the fields that are bounds now, and whether it was refused for these alone.
func withoutMoved(document []byte) ([]byte, bool) {
	moved := []string{"spec.fetch.allowCIDRs", "spec.fetch.allowPorts"}
	_, err := pipeline.Parse(document)
	refused := fault.From(err)
	if refused == nil || len(refused.Fields) == 0 ||
		slices.ContainsFunc(refused.Fields, func(f fault.Field) bool { return !slices.Contains(moved, f.Path) }) {
		return nil, false
	}
	var tree yaml.MapSlice // it keeps the order and the numbers
	if err := yaml.Unmarshal(document, &tree); err != nil {
		return nil, false
	}
	kept, err := yaml.Marshal(without(tree, "", moved))
	return kept, err == nil
}

// without returns a mapping at path without the fields at the paths in removed.
func without(tree yaml.MapSlice, path string, removed []string) yaml.MapSlice {
	var kept yaml.MapSlice
	for _, item := range tree {
		at := path + fmt.Sprint(item.Key)
		if below, ok := item.Value.(yaml.MapSlice); ok {
			item.Value = without(below, at+".", removed)
		}
		if !slices.Contains(removed, at) {
			kept = append(kept, item)
		}
	}
	return kept
}

// checkFree returns an error if addr cannot be listened on.
func checkFree(ctx context.Context, addr string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}
