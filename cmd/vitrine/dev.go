package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"vitrine.io/pkg/platform/config"
	"vitrine.io/pkg/platform/devstack"
	"vitrine.io/pkg/platform/telemetry"
)

// devOptions are the flags of dev.
type devOptions struct {
	data    string // directory; "" chooses one
	http    string // addresses
	media   string
	samples string
	api     string // of the admin ports
	worker  string
	demo    bool
	bin     string // directory of the programs
}

func (c console) devCommand() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use: "dev", Short: "Run the whole system on this machine, with a demonstration, until Ctrl-C", Args: cobra.NoArgs,
		Long: `Starts a real Postgres, and Kafka, Redis and S3 in this process, then the API, a worker and its codec processes.
Posts a product with three images and prints their renditions; --demo=false leaves that out. Sources of images may be on
this machine, on any port. Data is kept between starts; the programs' logs are in the data directory.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.bin == "" {
				self, err := os.Executable()
				if err != nil {
					return err
				}
				o.bin = filepath.Dir(self)
			}
			return c.dev(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.data, "data", "",
		"data directory (default .vitrine; below /var/lib/vitrine where Postgres cannot enter that)")
	f.StringVar(&o.http, "http", "127.0.0.1:8080", "address of the API")
	f.StringVar(&o.media, "media", "127.0.0.1:8081", "address of the renditions")
	f.StringVar(&o.samples, "samples", "127.0.0.1:8082", "address of the sample images")
	f.StringVar(&o.api, "api-admin", "127.0.0.1:9090", "address of the API's metrics and health")
	f.StringVar(&o.worker, "worker-admin", "127.0.0.1:9091", "address of the worker's metrics and health")
	f.BoolVar(&o.demo, "demo", true, "post a product and print its renditions")
	f.StringVar(&o.bin, "bin", "", "directory of the programs api, worker and codec (default: this program's)")
	return cmd
}

// dev runs until ctx ends or a program that it started exits.
func (c console) dev(ctx context.Context, o devOptions) error {
	if o.data == "" {
		as, err := devstack.PostgresUser(os.Getuid())
		if err != nil {
			return err
		}
		if o.data, err = dataDir(".", "/var/lib/vitrine", as); err != nil {
			return err
		}
	}
	var err error
	if o.data, err = filepath.Abs(o.data); err != nil {
		return err
	}
	if err := o.check(ctx); err != nil {
		return err
	}
	if err := makeDirs(o.data, "log"); err != nil {
		return err
	}
	log, closeLog, err := c.fileLog(filepath.Join(o.data, "log", "dev.log"))
	if err != nil {
		return err
	}
	defer closeLog()
	c.say("data and logs are in %s", o.data)

	s := &stack{
		console: c, options: o, log: log, client: &http.Client{Timeout: startTimeout}, gallery: newGallery(0, 0),
	}
	defer s.close()
	if err := s.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped while starting
		}
		return err
	}
	c.say("serving on http://%s", o.http)
	if o.demo {
		err := s.demonstrate(ctx)
		switch {
		case err == nil, ctx.Err() != nil:
		case errors.Is(err, context.DeadlineExceeded): // a busy machine is not an error
			c.say("the demonstration did not end in time: %v", err)
		default:
			return fmt.Errorf("demonstration: %w", err)
		}
	}
	c.say("Ctrl-C stops")
	err = s.wait(ctx)
	c.say("stopping")
	s.close()
	c.say("stopped")
	return err
}

// check returns an error for each address that is in use and each program that was not built.
func (o devOptions) check(ctx context.Context) error {
	var wrong mistakes
	for _, flag := range []struct{ name, addr string }{
		{"http", o.http}, {"media", o.media}, {"samples", o.samples}, {"api-admin", o.api}, {"worker-admin", o.worker},
	} {
		wrong.check(checkFree(ctx, flag.addr) == nil, "%s is in use: free it, or choose another address with --%s",
			flag.addr, flag.name)
	}
	for _, name := range []string{"api", "worker", "codec"} {
		_, err := os.Stat(filepath.Join(o.bin, name))
		wrong.check(err == nil, "the program %s is not in %s: run make build", name, o.bin)
	}
	return wrong.err()
}

func (c console) say(format string, args ...any) {
	fmt.Fprintf(c.stdout, "vitrine: "+format+"\n", args...)
}

// sayWaiting says why a request is repeated.
func (c console) sayWaiting(err error) { c.say("waiting: %v", err) }

// environment returns the environment of the programs, with the settings of the stack.
func (s *stack) environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
		"VITRINE_POSTGRES_DSN=" + s.postgres.DSN(),
		"VITRINE_REDIS_ADDRS=" + s.redis.Addr(),
		"VITRINE_KAFKA_BROKERS=" + s.kafka.Addrs()[0],
		"VITRINE_KAFKA_REPLICATION=1",
		"VITRINE_KAFKA_MIN_ISR=1",
		"VITRINE_S3_ENDPOINT=" + s.media.Endpoint(),
		"VITRINE_S3_ACCESS_KEY=vitrine",
		"VITRINE_S3_SECRET_KEY=vitrine-dev",
		"VITRINE_S3_ORIGINALS_BUCKET=vitrine-originals",
		"VITRINE_S3_CREATE_BUCKET=true",
		"VITRINE_S3_PUBLIC_READ=true",
		"VITRINE_HTTP_ADDR=" + s.options.http,
		"VITRINE_HTTP_CORS_ORIGINS=*",
		"VITRINE_PIPELINE_FILE=" + filepath.Join(s.options.data, "pipeline.yaml"),
		"VITRINE_PIPELINE_ALLOW_CIDRS=127.0.0.0/8,::1/128",
		"VITRINE_PIPELINE_ALLOW_ORIGINALS=true",
		"VITRINE_CODEC_PATH=" + filepath.Join(s.options.bin, "codec"),
		"VITRINE_SETUP_TIMEOUT=1m",
		"VITRINE_SHUTDOWN_DELAY=0s",
		"VITRINE_SHUTDOWN_GRACE=60s",
	}
}

// setUp runs `vitrine setup` in this process.
func (s *stack) setUp(ctx context.Context) error {
	cfg, _, err := config.Load[SetupConfig](nil, s.environment())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return setup(ctx, cfg, s.log.Named("setup"))
}

// fileLog returns dev's own log, in the programs' format, and a function that closes it.
func (c console) fileLog(path string) (*zap.Logger, func(), error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	log, _, stop, err := telemetry.NewLogger(telemetry.LogConfig{Level: "info", Format: "json"}, out, "dev", c.build, nil)
	if err != nil {
		return nil, nil, errors.Join(err, out.Close())
	}
	return log, func() { stop(); _ = out.Close() }, nil
}
