package main

import (
	"errors"
	"fmt"
	"io"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/platform/config"
	"vitrine.io/pkg/platform/telemetry"
)

// mistakes collects errors.
type mistakes []error

// check adds an error unless ok.
func (m *mistakes) check(ok bool, format string, args ...any) {
	if !ok {
		*m = append(*m, fmt.Errorf(format, args...))
	}
}

// err returns the errors joined, or nil.
func (m mistakes) err() error { return errors.Join(m...) }

// loadConfig returns the configuration from the environment, over a YAML file unless file is "".
func loadConfig[T any](c console, file string) (T, error) {
	var args []string
	if file != "" {
		args = []string{"--config", file}
	}
	return parseConfig[T](c, args)
}

// parseConfig returns the configuration from the arguments and the environment.
func parseConfig[T any](c console, args []string) (T, error) {
	cfg, unknown, err := config.Load[T](args, c.environ)
	if err != nil {
		return cfg, config.Hint(err, unknown)
	}
	return cfg, nil
}

// withConfig calls do with the configuration, or prints the help if the arguments ask for it. name and about are those of
// the command.
func withConfig[T any](c console, name, about string, args []string, do func(cfg T) error) error {
	program := config.Program{Name: "vitrine " + name, About: about + ".", Version: c.build.Version}
	if text, ok := config.Help[T](program, args); ok {
		_, err := io.WriteString(c.stdout, text)
		return err
	}
	cfg, err := parseConfig[T](c, args)
	if err != nil {
		return err
	}
	return do(cfg)
}

// logged calls do with the log of a command, and logs its error.
func (c console) logged(cfg telemetry.LogConfig, name string, do func(*zap.Logger) error) error {
	log, _, stop, err := telemetry.NewLogger(cfg, zapcore.AddSync(c.stderr), name, c.build, nil)
	if err != nil {
		return err
	}
	defer stop()
	if err := do(log); err != nil {
		log.Error("ended", zap.Error(err))
		return errLogged
	}
	return nil
}
