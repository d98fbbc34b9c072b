package program

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
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

// About says which program it is.
type About struct {
	Name    string // "api": in the log, in metrics and as the role of its heartbeats
	Text    string // one sentence
	Version string // as the linker was told it; "" if it was not
}

// Invocation is all that a program is given of the world.
type Invocation struct {
	Args, Environ  []string // without the program's name
	Stdout, Stderr io.Writer
	Hostname       func() (string, error)
	PID            int
	Build          func() (*debug.BuildInfo, bool)
}

// App is what a program is put together with.
type App struct {
	Registry *prometheus.Registry
	Log      *zap.Logger
	Pipeline *pipeline.Watcher // Follow keeps it up to date
	cfg      Config
	level    zap.AtomicLevel
	role     string
	instance string
	every    time.Duration // between heartbeats
}

// Run is a program from its first line to its last: it returns the exit code. serve works until its context ends.
func Run[C Configured](
	ctx context.Context, about About, world Invocation, serve func(ctx context.Context, cfg C, kit *App) error,
) int {
	build := telemetry.NewBuild(about.Version, world.Build)
	program := config.Program{Name: "vitrine-" + about.Name, About: about.Text, Version: build.Version}
	if text, asked := config.Help[C](program, world.Args); asked {
		_, err := io.WriteString(world.Stdout, text)
		return exit(about, world, err)
	}
	cfg, unknown, err := config.Load[C](world.Args, world.Environ)
	if err != nil {
		return exit(about, world, config.Hint(err, unknown))
	}
	kit, stop, err := newApp(about, world, build, cfg.common())
	if err != nil {
		return exit(about, world, err)
	}
	defer stop()
	kit.Log.Info("starting", zap.Any("config", config.Effective(cfg)), zap.String("instance", kit.instance),
		zap.Inline(names{kit.Pipeline.Current()}))
	for _, name := range unknown { // one environment may serve all programs; what is spelled nearly right is a mistake
		if name.Meant != "" {
			kit.Log.Warn("unknown variable", zap.String("detail", name.String()))
		}
	}
	if err := serve(ctx, cfg, kit); err != nil {
		kit.Log.Error("ended", zap.Error(err)) // the log is JSON to its last line
		return 1
	}
	kit.Log.Info("stopped")
	return 0
}

// exit tells what kept a program from starting.
func exit(about About, world Invocation, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(world.Stderr, "%s: %v\n", about.Name, err)
	return 1
}

// newApp makes what a program is put together with. stop writes the last lines of the log.
func newApp(about About, world Invocation, build telemetry.Build, cfg Config) (kit *App, stop func(), err error) {
	watcher, err := pipeline.NewWatcher(cfg.Pipeline, time.Now)
	if err != nil {
		return nil, nil, fmt.Errorf("VITRINE_PIPELINE_FILE: %w", err)
	}
	host, err := world.Hostname()
	if err != nil {
		return nil, nil, fmt.Errorf("read the host's name: %w", err)
	}
	reg := telemetry.NewRegistry(about.Name, build)
	reg.MustRegister(newPipelineMetrics(watcher.State))
	log, level, stop, err := telemetry.NewLogger(cfg.Log, zapcore.AddSync(world.Stderr), about.Name, build, reg)
	if err != nil {
		return nil, nil, err
	}
	return &App{
		Registry: reg, Log: log, Pipeline: watcher, cfg: cfg, level: level,
		role: about.Name, instance: instanceName(host, world.PID), every: beatEvery,
	}, stop, nil
}

// instanceName tells processes apart. The first process of a container is alone in it, and its host is called like the pod.
func instanceName(host string, pid int) string {
	if pid == 1 {
		return host
	}
	return host + "-" + strconv.Itoa(pid)
}

// Admin is the part that answers on the admin port, also what the program adds to it.
func (k *App) Admin(health *telemetry.Health, routes ...telemetry.Route) lifecycle.Part {
	admin := telemetry.NewAdmin(k.cfg.Admin, k.Registry, health, k.level, k.Log.Named("admin"), routes...)
	return lifecycle.Part{Name: "admin", Run: admin.Run, Ready: admin.Ready}
}

// names are a revision's names, as fields of a line of the log.
type names struct{ *pipeline.Revision }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (n names) MarshalLogObject(to zapcore.ObjectEncoder) error {
	to.AddString("pipeline", n.Name())
	to.AddString("revision", n.ID())
	to.AddString("hash", n.Hash())
	return nil
}

// NewID returns a UUID that sorts by time, so that the indexes on it stay dense.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }
