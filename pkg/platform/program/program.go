package program

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/foundation/lifecycle"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/platform/config"
	"vitrine.io/pkg/platform/telemetry"
)

// About identifies the program.
type About struct {
	Name    string // "api": in the log, in metrics and as the role of its heartbeats
	Text    string // one sentence
	Version string // from the linker; "" if it was not set
}

// Invocation has the arguments and the environment of a program.
type Invocation struct {
	Args, Environ  []string // without the program's name
	Stdout, Stderr io.Writer
	Hostname       func() (string, error)
	PID            int
	Build          func() (*debug.BuildInfo, bool)
}

// App has what the parts of a program share.
type App struct {
	Registry          *prometheus.Registry
	Log               *zap.Logger
	Pipeline          *pipeline.Watcher // WatchPipeline keeps it up to date; nil if the program follows none
	cfg               Common
	level             zap.AtomicLevel
	role              string
	instance          string
	heartbeatInterval time.Duration // between heartbeats
}

// Main runs a program with the arguments of this process and its environment, until SIGINT or SIGTERM, and ends the process
// with the program's exit code.
func Main[C Configured](about About, environ []string, serve func(ctx context.Context, cfg C, app *App) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Run(ctx, about, Invocation{
		Args: os.Args[1:], Environ: environ, Stdout: os.Stdout, Stderr: os.Stderr,
		Hostname: os.Hostname, PID: os.Getpid(), Build: debug.ReadBuildInfo,
	}, serve)
	stop()
	os.Exit(code)
}

// Run runs a program and returns its exit code. serve runs until its context ends.
func Run[C Configured](
	ctx context.Context, about About, inv Invocation, serve func(ctx context.Context, cfg C, app *App) error,
) int {
	build := telemetry.NewBuild(about.Version, inv.Build)
	program := config.Program{Name: "vitrine-" + about.Name, About: about.Text, Version: build.Version}
	if text, ok := config.Help[C](program, inv.Args); ok {
		_, err := io.WriteString(inv.Stdout, text)
		return exitCode(about, inv, err)
	}
	cfg, unknown, err := config.Load[C](inv.Args, inv.Environ)
	if err != nil {
		return exitCode(about, inv, config.Hint(err, unknown))
	}
	app, stop, err := newApp(about, inv, build, cfg.common(), cfg.pipelineFile())
	if err != nil {
		return exitCode(about, inv, err)
	}
	defer stop()
	app.Log.Info("starting", zap.Any("config", config.Effective(cfg)), zap.String("instance", app.instance), app.revision())
	for _, name := range unknown { // programs may share an environment, so only misspelled names are logged
		if name.Meant != "" {
			app.Log.Warn("unknown variable", zap.String("detail", name.String()))
		}
	}
	if err := serve(ctx, cfg, app); err != nil {
		app.Log.Error("ended", zap.Error(err)) // not printed to stderr, because all output is JSON
		return 1
	}
	app.Log.Info("stopped")
	return 0
}

// exitCode prints err, which kept the program from starting, and returns the exit code.
func exitCode(about About, inv Invocation, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(inv.Stderr, "%s: %v\n", about.Name, err)
	return 1
}

// newApp returns the program's App. stop writes the last lines of the log.
func newApp(
	about About, inv Invocation, build telemetry.Build, cfg Common, file *pipeline.Config,
) (app *App, stop func(), err error) {
	var watcher *pipeline.Watcher
	if file != nil {
		if watcher, err = pipeline.NewWatcher(*file, time.Now); err != nil {
			return nil, nil, fmt.Errorf("VITRINE_PIPELINE_FILE: %w", err)
		}
	}
	host, err := inv.Hostname()
	if err != nil {
		return nil, nil, fmt.Errorf("read the host's name: %w", err)
	}
	reg := telemetry.NewRegistry(about.Name, build)
	if watcher != nil {
		reg.MustRegister(newPipelineMetrics(watcher.State))
	}
	log, level, stop, err := telemetry.NewLogger(cfg.Log, zapcore.AddSync(inv.Stderr), about.Name, build, reg)
	if err != nil {
		return nil, nil, err
	}
	return &App{
		Registry: reg, Log: log, Pipeline: watcher, cfg: cfg, level: level,
		role: about.Name, instance: instanceName(host, inv.PID), heartbeatInterval: heartbeatInterval,
	}, stop, nil
}

// instanceName returns a name of the process: host and process id, or only the host for the main process of a container,
// whose host has the pod's name.
func instanceName(host string, pid int) string {
	if pid == 1 {
		return host
	}
	return host + "-" + strconv.Itoa(pid)
}

// Instance returns the name of this process among those of its program.
func (a *App) Instance() string { return a.instance }

// Admin returns the part of the program that serves the admin port, with the routes of the program.
func (a *App) Admin(health *telemetry.Health, routes ...telemetry.Route) lifecycle.Part {
	admin := telemetry.NewAdmin(a.cfg.Admin, a.Registry, health, a.level, a.Log.Named("admin"), routes...)
	return lifecycle.Part{Name: "admin", Run: admin.Run, Ready: admin.Ready}
}

// revision returns the log fields of the revision in force.
func (a *App) revision() zap.Field {
	if a.Pipeline == nil {
		return zap.Skip()
	}
	return zap.Inline(revisionFields{a.Pipeline.Current()})
}

// revisionFields are the log fields of a revision.
type revisionFields struct{ *pipeline.Revision }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (n revisionFields) MarshalLogObject(to zapcore.ObjectEncoder) error {
	to.AddString("pipeline", n.Name())
	to.AddString("revision", n.ID())
	to.AddString("hash", n.Hash())
	return nil
}

// NewID returns a version 7 UUID. It sorts by time, which keeps indexes dense.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }
