package telemetry

import (
	"fmt"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	formatJSON    = "json"
	formatConsole = "console"
)

// flushSize is how many bytes of lines wait at most.
const flushSize = 64 << 10

// NewLogger returns the program's logger and the handle that changes its level while it runs. Every line names service
// and build's version. reg takes the counter of dropped lines; nil is for a program without metrics.
//
// Lines are written together, every cfg.Flush: a write for each line was a third of what a cached request costs. A line of
// level warn or above is written at once, with all before it. stop writes what waits; no line may be logged after it. What a
// kill -9 takes is the last moment's lines below warn.
func NewLogger(
	cfg LogConfig, out zapcore.WriteSyncer, service string, build Build, reg prometheus.Registerer,
) (log *zap.Logger, level zap.AtomicLevel, stop func(), err error) {
	if level, err = zap.ParseAtomicLevel(cfg.Level); err != nil {
		return nil, level, nil, fmt.Errorf("parse log level: %w", err)
	}
	lines, stop := zapcore.Lock(out), func() {}
	if cfg.Flush > 0 {
		plain := zapcore.AddSync(struct{ io.Writer }{out}) // without Sync, which would be an fsync each time
		buffer := &zapcore.BufferedWriteSyncer{WS: plain, Size: flushSize, FlushInterval: cfg.Flush}
		lines, stop = buffer, func() { _ = buffer.Stop() } // a log that cannot be written has nobody to tell
	}
	core := zapcore.NewCore(encoder(cfg.Format), lines, level)
	if cfg.Flush > 0 {
		core = zapcore.RegisterHooks(core, func(entry zapcore.Entry) error {
			if entry.Level < zapcore.WarnLevel {
				return nil
			}
			return lines.Sync()
		})
	}
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
	log = zap.New(core, zap.AddStacktrace(zapcore.DPanicLevel), zap.ErrorOutput(zapcore.Lock(out)))
	return log.With(zap.String("service", service), zap.String("version", build.Version)), level, stop, nil
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
