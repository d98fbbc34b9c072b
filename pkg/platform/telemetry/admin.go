package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof" // its handlers on the default mux are not served
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Limits of the admin server. A profile of N seconds may be written for N seconds more than writeTimeout.
const (
	readTimeout     = 5 * time.Second
	writeTimeout    = 30 * time.Second
	idleTimeout     = 2 * time.Minute // scrapers come every 15 to 60 s and keep their connection
	shutdownTimeout = time.Second
	maxHeaderBytes  = 16 << 10
	maxBodyBytes    = 1 << 10
	maxScrapes      = 4
)

// Admin is the server on the admin port.
type Admin struct {
	cfg       AdminConfig
	health    *Health
	level     zap.AtomicLevel
	log       *zap.Logger
	server    *http.Server
	listening chan struct{} // closed once addr is known
	addr      net.Addr
}

// Route is a route that a program adds to its admin port. Pattern is a pattern of http.ServeMux; a response must be
// written within 30 s.
type Route struct {
	Pattern string
	Handler http.Handler
}

// NewAdmin returns the admin server:
//
//	GET /metrics        Prometheus or OpenMetrics text
//	GET /healthz        200 as long as the process responds
//	GET /readyz         200 or 503; with ?verbose the result of each check, too
//	GET, PUT /loglevel  {"level":"debug"}
//	GET /debug/pprof/   profiles
//
// and routes. Clients are not authenticated.
func NewAdmin(
	cfg AdminConfig, reg *prometheus.Registry, health *Health, level zap.AtomicLevel, log *zap.Logger, routes ...Route,
) *Admin {
	a := &Admin{cfg: cfg, health: health, level: level, log: log, listening: make(chan struct{})}
	errorLog, err := zap.NewStdLogAt(a.log, zapcore.WarnLevel)
	if err != nil {
		panic("telemetry: warn is a level: " + err.Error())
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog: errorLog, ErrorHandling: promhttp.ContinueOnError, Registry: reg,
		EnableOpenMetrics: true, MaxRequestsInFlight: maxScrapes,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		a.writeReport(w, http.StatusOK, Report{Status: "ok"})
	})
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.Handle("GET /loglevel", level)
	mux.HandleFunc("PUT /loglevel", a.setLevel)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	for _, r := range routes {
		mux.Handle(r.Pattern, r.Handler)
	}
	a.server = &http.Server{
		Handler: mux, ErrorLog: errorLog, MaxHeaderBytes: maxHeaderBytes,
		ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
	}
	return a
}

// Run serves until ctx ends. Requests in flight then have one more second. It may be called once. It returns an error if
// the address is in use.
func (a *Admin) Run(ctx context.Context) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", a.cfg.Addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	a.addr = listener.Addr()
	close(a.listening)
	a.log.Info("listening", zap.Stringer("addr", a.addr))

	served := make(chan error, 1)
	go func() { served <- a.server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	var closeErr error
	if err := a.server.Shutdown(limit); err != nil {
		closeErr = a.server.Close() // interrupts profiles and scrapes
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return closeErr
}

// Ready returns nil when the port is open, or the error of ctx.
func (a *Admin) Ready(ctx context.Context) error {
	select {
	case <-a.listening:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Addr returns the address the server listens on. It may be called once Ready has returned nil.
func (a *Admin) Addr() string { return a.addr.String() }

func (a *Admin) readyz(w http.ResponseWriter, r *http.Request) {
	report := a.health.Report()
	status := http.StatusOK
	if report.Status != Ready {
		status = http.StatusServiceUnavailable
	}
	if !r.URL.Query().Has("verbose") {
		report.Checks = nil
	}
	a.writeReport(w, status, report)
}

func (a *Admin) setLevel(w http.ResponseWriter, r *http.Request) {
	before := a.level.Level()
	r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
	a.level.ServeHTTP(w, r)
	if after := a.level.Level(); after != before {
		a.log.Warn("log level changed", zap.Stringer("from", before), zap.Stringer("to", after))
	}
}

func (a *Admin) writeReport(w http.ResponseWriter, status int, report Report) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(report); err != nil {
		a.log.Debug("client gone", zap.Error(err))
	}
}
