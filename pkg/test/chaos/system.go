package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/process"
	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/imageserver"
	"vitrine.io/pkg/test/nameserver"
	"vitrine.io/pkg/test/port"
	"vitrine.io/pkg/test/servers"
)

// cacheTTL is the TTL of the programs' cache, which bounds the age of a stale response.
const cacheTTL = 10 * time.Second

// Backends are the servers that the programs use, with a proxy in front of Postgres, MinIO and each broker, and the server
// of source images. All runs share them.
type Backends struct {
	*servers.Stack
	Source  *imageserver.Server
	Names   *nameserver.Server // resolves the names of sources
	proxies map[string]*Proxy  // by fault target, such as "to postgres"
	egress  [hosts]*Proxy      // in front of Source: each client has a host of its own

	standby     *Proxy // to the standby of a run that has one; faults of "to postgres" are its faults, too
	replication *Proxy // from the standby to its primary
	getenv      func(string) string
}

// sources returns the URL of a client's sources.
func (s *Backends) sources(client int) string {
	_, port, _ := strings.Cut(s.egress[client].Addr, ":")
	return fmt.Sprintf("http://sources-%d.chaos.test:%s", client, port)
}

// startSources starts the image server, its name server and its proxies.
func (s *Backends) startSources() (err error) {
	if s.Source, err = imageserver.Start(); err != nil {
		return err
	}
	if s.Names, err = nameserver.Start(); err != nil {
		return err
	}
	for i := range s.egress {
		if s.egress[i], err = NewProxy(); err != nil {
			return err
		}
		s.egress[i].SetServer(strings.TrimPrefix(s.Source.URL, "http://"))
	}
	return nil
}

// heal ends the faults of all networks.
func (s *Backends) heal() {
	for _, p := range s.allProxies() {
		p.Heal()
	}
	s.Names.SetMode(nameserver.Answers)
}

// allProxies returns all proxies that were started.
func (s *Backends) allProxies() []*Proxy {
	all := append(slices.Collect(maps.Values(s.proxies)), s.standby, s.replication)
	return slices.DeleteFunc(append(all, s.egress[:]...), func(p *Proxy) bool { return p == nil })
}

// proxiesOf returns the proxies of a fault's target, or nil if it is not a network.
func (s *Backends) proxiesOf(target string) []*Proxy {
	p, ok := s.proxies[target]
	switch {
	case !ok:
		return nil
	case target == "to postgres":
		return []*Proxy{p, s.standby}
	default:
		return []*Proxy{p}
	}
}

// commitsLost returns the number of COMMITs whose reply was dropped so far.
func (s *Backends) commitsLost() (lost int) {
	for _, p := range s.proxiesOf("to postgres") {
		lost += p.CommitsLost()
	}
	return lost
}

// StartBackends starts the servers, the proxies and the image server.
func StartBackends(getenv func(string) string) (_ *Backends, err error) {
	s := &Backends{proxies: map[string]*Proxy{}, getenv: getenv}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	targets := []string{"to postgres", "to minio"}
	for i := range servers.StackBrokers {
		targets = append(targets, fmt.Sprintf("to broker-%d", i))
	}
	for _, target := range targets {
		if s.proxies[target], err = NewProxy(); err != nil {
			return s, err
		}
	}
	for _, p := range []**Proxy{&s.standby, &s.replication} {
		if *p, err = NewProxy(); err != nil {
			return s, err
		}
	}
	if err := s.startSources(); err != nil {
		return s, err
	}
	var advertised [servers.StackBrokers]string
	for i := range advertised {
		advertised[i] = s.proxies[fmt.Sprintf("to broker-%d", i)].Addr
	}
	if s.Stack, err = servers.StartStack(getenv, advertised); err != nil {
		return s, fmt.Errorf("start servers: %w", err)
	}
	s.proxies["to minio"].SetServer(s.MinIO.Addr)
	for i, broker := range s.Kafka {
		s.proxies[fmt.Sprintf("to broker-%d", i)].SetServer(broker.Addr)
	}
	return s, nil
}

// Close stops the proxies and the servers. Their data is lost.
func (s *Backends) Close() error {
	for _, p := range s.allProxies() {
		p.Close()
	}
	var err error
	if s.Source != nil {
		err = s.Source.Close()
	}
	if s.Names != nil {
		err = errors.Join(err, s.Names.Close())
	}
	if s.Stack != nil {
		for _, broker := range s.Kafka { // a clean shutdown takes long, and the data is not needed
			err = errors.Join(err, broker.Kill())
		}
		err = errors.Join(err, s.Stop())
	}
	return err
}

// System is one installation of Vitrine on the backends, with its own schema, topics, key prefix and buckets.
type System struct {
	backends   *Backends
	bin        string
	dir        string // of logs
	name       string // of the schema; prefix of topics and keys
	database   *database
	stock      int64 // highest id of the users of the stock, or 0
	bucket     servers.Bucket
	env        []string
	forkThread *process.ForkThread
	programs   map[string]*Program
	apis       []string // URLs
	ports      []*port.Reservation
}

// NewSystem creates the schema of a run and runs vitrine setup. It starts no program. The system has what the faults of the
// schedule need. bin is the directory of the programs, dir that of their logs.
func NewSystem(
	ctx context.Context, backends *Backends, schedule Schedule, name, bin, dir string, environ []string,
) (_ *System, err error) {
	s := &System{
		backends: backends, bin: bin, dir: dir, name: name, forkThread: process.NewForkThread(), programs: map[string]*Program{},
		bucket: backends.S3,
	}
	s.bucket.Bucket = strings.ReplaceAll(name, "_", "-")
	if s.database, err = openDatabase(ctx, backends, name, schedule.has(Promote)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.database.close(context.WithoutCancel(ctx)))
		}
	}()
	if err := s.configure(environ); err != nil {
		return nil, err
	}
	setup := exec.CommandContext(ctx, filepath.Join(bin, "vitrine"), "setup")
	setup.Env, setup.SysProcAttr = s.env, process.Attr(nil, syscall.SIGKILL)
	if out, err := setup.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("vitrine setup: %w\n%s", err, out)
	}
	if schedule.has(AbuseLists) {
		if err := s.insertStock(ctx); err != nil {
			return nil, err
		}
	}
	return s, s.database.exec(ctx, recordChanges)
}

// recordChanges creates a trigger that records every change of a row of products, images or image_jobs.
const recordChanges = `
CREATE TABLE chaos_changes (n bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    tx text NOT NULL DEFAULT pg_current_xact_id()::text, kind text NOT NULL, op text NOT NULL, old jsonb, new jsonb);
CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO chaos_changes (kind, op, old, new) VALUES (TG_TABLE_NAME, TG_OP, to_jsonb(OLD), to_jsonb(NEW));
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_note AFTER INSERT OR UPDATE OR DELETE ON products FOR EACH ROW EXECUTE FUNCTION chaos_note();
CREATE TRIGGER chaos_note AFTER INSERT OR UPDATE OR DELETE ON images FOR EACH ROW EXECUTE FUNCTION chaos_note();
CREATE TRIGGER chaos_note AFTER INSERT OR UPDATE OR DELETE ON image_jobs FOR EACH ROW EXECUTE FUNCTION chaos_note()`

// configure writes the pipeline file and the environment of all programs. Its timeouts are short, so that sessions,
// scheduled deletions and cache entries expire within half a minute.
func (s *System) configure(environ []string) error {
	p := pipeline.Default()
	p.Spec.Renditions = []pipeline.Rendition{
		{Name: "thumb", Width: 120, Formats: []pipeline.Output{{Format: pipeline.WebP}, {Format: pipeline.JPEG}}},
		{Name: "card", Width: 300, Formats: []pipeline.Output{{Format: pipeline.JPEG, Default: true}}},
	}
	p.Spec.Fetch.ConnectTimeout = pipeline.Duration(time.Second)
	p.Spec.Fetch.HeaderTimeout = pipeline.Duration(2 * time.Second)
	p.Spec.Fetch.Timeout = pipeline.Duration(2500 * time.Millisecond)
	p.Spec.Fetch.PerHost = 8
	p.Spec.Originals.Keep = true
	p.Spec.Limits.Deadline = pipeline.Duration(3 * time.Second)
	p.Spec.Retry = pipeline.Retry{
		MaxAttempts: 4, Backoff: pipeline.Duration(250 * time.Millisecond), MaxBackoff: pipeline.Duration(time.Second),
		MaxAge: pipeline.Duration(24 * time.Hour),
	}
	file, _ := s.pipelineFiles()
	if err := os.WriteFile(file, p.Document(), 0o600); err != nil {
		return fmt.Errorf("write pipeline: %w", err)
	}
	proxyOf := func(target string) string { return s.backends.proxies[target].Addr }
	dsn, err := s.database.programsDSN()
	if err != nil {
		return err
	}
	var brokers, redis []string
	for i := range s.backends.Kafka {
		brokers = append(brokers, proxyOf(fmt.Sprintf("to broker-%d", i)))
	}
	for _, n := range s.backends.Redis {
		redis = append(redis, n.Addr)
	}
	s.env = append(s.env, environ...)
	for name, value := range map[string]string{
		"LOG_LEVEL": "info", "PIPELINE_FILE": file, "PIPELINE_ALLOW_CIDRS": "127.0.0.0/8", "PIPELINE_ALLOW_ORIGINALS": "true",
		"SHUTDOWN_DELAY":        "0s",
		"HTTP_SHUTDOWN_TIMEOUT": "10s", "HTTP_HANDLER_TIMEOUT": "3s",
		"POSTGRES_DSN": dsn, "POSTGRES_MAX_OPEN_CONNS": "6", "POSTGRES_CONNECT_TIMEOUT": "2s", "POSTGRES_TIMEOUT": "5s",
		"POSTGRES_STATEMENT_TIMEOUT": "3s", "POSTGRES_LOCK_TIMEOUT": "2s", "POSTGRES_LIST_MAX_COST": fmt.Sprint(listMaxCost),
		"HEALTH_INTERVAL": "300ms", "HEALTH_UNREADY_AFTER": "2s",
		"KAFKA_BROKERS": strings.Join(brokers, ","), "KAFKA_TOPIC_PREFIX": s.topicPrefix(), "KAFKA_PARTITIONS": "3",
		"KAFKA_REPLICATION": "3", "KAFKA_MIN_ISR": "2",
		"REDIS_ADDRS": strings.Join(redis, ","), "REDIS_KEY_PREFIX": s.name + ":", "REDIS_TTL": cacheTTL.String(),
		"REDIS_TOMBSTONE_TTL": "10s", "REDIS_MISSING_TTL": "1s",
		"S3_ENDPOINT": "http://" + proxyOf("to minio"), "S3_REGION": s.bucket.Region, "S3_BUCKET": s.bucket.Bucket,
		"S3_ACCESS_KEY": s.bucket.AccessKey, "S3_SECRET_KEY": s.bucket.SecretKey, "S3_CREATE_BUCKET": "true",
		"S3_ORIGINALS_BUCKET": s.originals().Bucket, "WORKER_CANARY_KEEP": "12s",
		"S3_PUBLIC_URL": s.publicURL(), "S3_ATTEMPT_TIMEOUT": "2s",
		"CODEC_PATH": filepath.Join(s.bin, "codec"), "CODEC_CHILDREN": "1", "CODEC_START_BACKOFF": "200ms",
		"WORKER_CONCURRENCY": "4", "WORKER_STORE_TIMEOUT": "4s", "WORKER_OUTCOME_TIMEOUT": "3s",
		"WORKER_DEFER_DELAY": "400ms", "WORKER_BUSY_DELAY": "200ms",
		"FETCH_RESOLVER": s.backends.Names.Addr, "FETCH_CONTROL_NAMES": "control.chaos.test.",
		"EGRESS_PROBE_TIMEOUT": "1s", "BREAKER_MAX_PAUSE": "3s",
		"RESCUER_INTERVAL": "500ms", "CLEANER_INTERVAL": "500ms", "GC_INTERVAL": "500ms",
		"RESCUER_OVERDUE_AFTER": "3s", "GC_SECOND_PASS_AFTER": "1s", "GC_LEASE": "5s", "CATALOG_DELETION_GRACE": "12s",
		"BACKFILL_INTERVAL": "300ms", "BACKFILL_LEASE": "3s", "BACKFILL_SETTLE": "6s", "BACKFILL_LOST_AFTER": "20s",
		"SETUP_TIMEOUT": "60s",
	} {
		s.env = append(s.env, "VITRINE_"+name+"="+value)
	}
	return nil
}

func (s *System) topicPrefix() string { return s.name + "." }

// originals is the bucket for originals.
func (s *System) originals() servers.Bucket {
	b := s.bucket
	b.Bucket += "-originals"
	return b
}

// publicURL is the prefix of object URLs in the API.
func (s *System) publicURL() string { return "http://images.example/" + s.name }

// Start starts two api and two worker processes, and returns when they are ready.
func (s *System) Start(ctx context.Context) error {
	for _, name := range []string{"api-0", "api-1", "worker-0", "worker-1"} {
		kind, _, _ := strings.Cut(name, "-")
		admin, err := s.reserve()
		if err != nil {
			return err
		}
		env := append(append([]string{}, s.env...), "VITRINE_ADMIN_ADDR="+admin, "VITRINE_KAFKA_CLIENT_ID="+name,
			"VITRINE_POSTGRES_APPLICATION_NAME="+name)
		if kind == "api" {
			addr, err := s.reserve()
			if err != nil {
				return err
			}
			env = append(env, "VITRINE_HTTP_ADDR="+addr)
			s.apis = append(s.apis, "http://"+addr)
		}
		p := &Program{Name: name, Admin: "http://" + admin, process: &process.Process{
			Name: name, Argv: []string{filepath.Join(s.bin, kind)}, Dir: s.dir, Log: filepath.Join(s.dir, name+".log"), Env: env,
			Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, StopTimeout: stopTimeout, ForkThread: s.forkThread,
		}}
		s.programs[name] = p
		if err := p.Start(); err != nil {
			return err
		}
	}
	return s.Ready(ctx)
}

// readyTimeout is the time in which programs become ready once their servers are up. It allows for a busy machine.
const readyTimeout = 3 * time.Minute

// Ready waits until all programs are ready. It fails if a program exits or after readyTimeout.
func (s *System) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	c := client.New("", client.Options{Timeout: 2 * time.Second})
	defer c.Close()
	for _, p := range s.programs {
		for {
			err := p.ready(ctx, c)
			if err == nil {
				break
			}
			if !p.Running() {
				return fmt.Errorf("wait until %s is ready: it exited: %s", p.Name, strings.Join(p.UnexpectedExits(), "; "))
			}
			if !sleep(ctx, 50*time.Millisecond) {
				return fmt.Errorf("wait until %s is ready: %w", p.Name, err)
			}
		}
	}
	return nil
}

// reserve returns a listen address for a program. It stays reserved until Remove, even while the program is stopped.
func (s *System) reserve() (string, error) {
	r, err := port.Reserve()
	if err != nil {
		return "", err
	}
	s.ports = append(s.ports, r)
	return r.Addr(), nil
}

// Stop ends all programs concurrently with SIGTERM.
func (s *System) Stop() error {
	errs := make(chan error, len(s.programs))
	var stops sync.WaitGroup
	for _, p := range s.programs {
		stops.Go(func() { errs <- p.Stop() })
	}
	stops.Wait()
	close(errs)
	var failed []error
	for err := range errs {
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// Remove kills the programs that still run, and removes the schema, buckets and topics.
func (s *System) Remove(ctx context.Context) error {
	var errs []error
	for _, p := range s.programs {
		errs = append(errs, p.Kill())
	}
	s.forkThread.Close()
	for _, r := range s.ports {
		r.Release()
	}
	errs = append(errs, s.database.close(ctx), s.backends.RemoveBucket(ctx, s.bucket),
		s.backends.RemoveBucket(ctx, s.originals()), s.removeTopics())
	return errors.Join(errs...)
}
