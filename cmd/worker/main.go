package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/config"
	"vitrine.io/pkg/kafka"
	"vitrine.io/pkg/rediscache"
	"vitrine.io/pkg/telemetry"
)

// version is written by the linker: -X main.version.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	if err == nil {
		return
	}
	if !errors.Is(err, errLogged) {
		fmt.Fprintln(os.Stderr, "worker:", err)
	}
	os.Exit(1)
}

// errLogged is returned when the log, which is JSON to its last line, has told what went wrong.
var errLogged = errors.New("see the log")

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	build := telemetry.NewBuild(version, debug.ReadBuildInfo)
	program := config.Program{Name: "vitrine-worker", About: "Vitrine's image worker.", Version: build.Version}
	if text, asked := config.Help[Config](program, args); asked {
		_, err := io.WriteString(stdout, text)
		return err
	}
	cfg, unknown, err := config.Load[Config](args, environ)
	if err != nil {
		return config.Hint(err, unknown)
	}
	pipe, err := cfg.Pipeline.Load()
	if err != nil {
		return fmt.Errorf("VITRINE_PIPELINE_FILE: %w", err)
	}
	reg := telemetry.NewRegistry("worker", build)
	log, level, stop, err := telemetry.NewLogger(cfg.Log, zapcore.AddSync(stderr), "worker", build, reg)
	if err != nil {
		return err
	}
	defer stop()
	kafka.BridgeLogger(log)
	rediscache.BridgeLogger(log)
	log.Info("starting", zap.Any("config", config.Effective(cfg)), zap.String("pipeline", pipe.Hash()))
	for _, name := range unknown { // one environment may serve all programs; what is spelled nearly right is a mistake
		if name.Meant != "" {
			log.Warn("unknown variable", zap.String("detail", name.String()))
		}
	}
	p, err := assemble(cfg, pipe, reg, log)
	if err == nil {
		err = p.run(ctx, level)
	}
	if err != nil {
		log.Error("ended", zap.Error(err))
		return errLogged
	}
	log.Info("stopped")
	return nil
}
