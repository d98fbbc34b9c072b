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

// flushSize is the size in bytes at which buffered lines are written.
const flushSize = 64 << 10

// NewLogger returns the program's logger and the handle that changes its level while it runs. Every line contains service
// and the version of build. NewLogger registers the counter of dropped lines with reg, unless reg is nil.
//
// Lines are buffered and written every cfg.Flush, because a write for each line needed a third of the CPU time of a
// cached request. A line of level warn or above is written at once, together with the buffered lines. stop writes the
// buffered lines; nothing may be logged after it. A SIGKILL loses the buffered lines.
func NewLogger(
	cfg LogConfig, out zapcore.WriteSyncer, service string, build Build, reg prometheus.Registerer,
) (log *zap.Logger, level zap.AtomicLevel, stop func(), err error) {
	if level, err = zap.ParseAtomicLevel(cfg.Level); err != nil {
		return nil, level, nil, fmt.Errorf("parse log level: %w", err)
	}
	lines, stop := zapcore.Lock(out), func() {}
	if cfg.Flush > 0 {
		plain := zapcore.AddSync(struct{ io.Writer }{out}) // hides Sync, which would be an fsync each time
		buffer := &zapcore.BufferedWriteSyncer{WS: plain, Size: flushSize, FlushInterval: cfg.Flush}
		lines, stop = buffer, func() { _ = buffer.Stop() } // an error of the log cannot be logged
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
	// Only DPanic and above have a stack: other errors are wrapped on their way.
	log = zap.New(core, zap.AddStacktrace(zapcore.DPanicLevel), zap.ErrorOutput(zapcore.Lock(out)))
	return log.With(zap.String("service", service), zap.String("version", build.Version)), level, stop, nil
}

func encoder(format string) zapcore.Encoder {
	cfg := zap.NewProductionEncoderConfig()
	cfg.StacktraceKey = "stack"
	cfg.EncodeTime = func(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
		zapcore.RFC3339NanoTimeEncoder(t.UTC(), enc)
	}
	if format == formatConsole {
		return zapcore.NewConsoleEncoder(cfg)
	}
	return zapcore.NewJSONEncoder(cfg)
}
