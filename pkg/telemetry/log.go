package telemetry

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	formatJSON    = "json"
	formatConsole = "console"
)

// NewLogger returns the program's logger and the handle that changes its level while it runs. Every line names service
// and build's version. reg takes the counter of dropped lines; nil is for a program without metrics.
func NewLogger(
	cfg LogConfig, out zapcore.WriteSyncer, service string, build Build, reg prometheus.Registerer,
) (*zap.Logger, zap.AtomicLevel, error) {
	level, err := zap.ParseAtomicLevel(cfg.Level)
	if err != nil {
		return nil, level, fmt.Errorf("parse log level: %w", err)
	}
	core := zapcore.NewCore(encoder(cfg.Format), zapcore.Lock(out), level)
	if cfg.SamplingFirst > 0 {
		dropped := newLogMetrics(reg)
		core = zapcore.NewSamplerWithOptions(core, time.Second, cfg.SamplingFirst, cfg.SamplingThereafter,
			zapcore.SamplerHook(func(entry zapcore.Entry, decision zapcore.SamplingDecision) {
				if decision&zapcore.LogDropped != 0 {
					dropped.WithLabelValues(entry.Level.String()).Inc()
				}
			}))
	}
	// A stack is worth its length where the program stops or should have; an error tells its way by its wraps.
	log := zap.New(core, zap.AddStacktrace(zapcore.DPanicLevel), zap.ErrorOutput(zapcore.Lock(out)))
	return log.With(zap.String("service", service), zap.String("version", build.Version)), level, nil
}

func encoder(format string) zapcore.Encoder {
	cfg := zapcore.EncoderConfig{
		TimeKey: "ts", LevelKey: "level", NameKey: "logger", MessageKey: "msg", StacktraceKey: "stack",
		LineEnding:     zapcore.DefaultLineEnding,
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeDuration: zapcore.SecondsDurationEncoder,
		EncodeTime: func(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
			zapcore.RFC3339NanoTimeEncoder(t.UTC(), enc)
		},
	}
	if format == formatConsole {
		return zapcore.NewConsoleEncoder(cfg)
	}
	return zapcore.NewJSONEncoder(cfg)
}
