package httpapi

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
)

// Catalog has the operations that the API calls; *catalog.Service implements it. All methods may be called concurrently.
// Every error has a kind (package fault) or is that of ctx.
type Catalog interface {
	// CreateUser adds a user. It returns a fault.Invalid that lists every wrong field, or fault.Conflict if the e-mail
	// address is taken.
	CreateUser(ctx context.Context, name, email string) (catalog.User, error)
	// CreateUserOnce is CreateUser for a request that a client may repeat under the same key, as CreateOnce is Create.
	CreateUserOnce(ctx context.Context, name, email string, key catalog.IdempotencyKey,
		respond func(catalog.User) (catalog.SavedResponse, error),
	) (saved catalog.SavedResponse, replayed bool, err error)
	// User returns a user, or fault.NotFound.
	User(ctx context.Context, id catalog.UserID) (catalog.User, error)
	// Create adds a product and requests its images. It returns a fault.Invalid that lists every wrong field, or an error
	// with the code outcome_unknown if the product may have been added. traceparent is a valid W3C trace context, or "".
	Create(ctx context.Context, in catalog.NewProductInput, traceparent string) (catalog.Product, error)
	// Cached returns a product's finished JSON, or fault.NotFound, without the database. hit is false, and err nil, if only the
	// database knows.
	Cached(ctx context.Context, id catalog.ProductID) (doc catalog.Document, hit bool, err error)
	// Load is Cached with the database, for a product that is not cached.
	Load(ctx context.Context, id catalog.ProductID) (catalog.Document, error)
	// List returns one page. fault.Invalid lists every wrong parameter.
	List(ctx context.Context, q catalog.Query) (catalog.Page, error)
	// CreateOnce is Create for a request that a client may repeat under the same key: it returns what respond returned
	// for the product, or the response that an earlier request saved. It returns catalog.ErrInProgress while another
	// request with the key is in progress, and catalog.ErrKeyReused if the key was used for another content.
	CreateOnce(ctx context.Context, in catalog.NewProductInput, key catalog.IdempotencyKey,
		respond func(catalog.Product) (catalog.SavedResponse, error), traceparent string,
	) (saved catalog.SavedResponse, replayed bool, err error)
	// Patch changes a product. If seen is nil, it changes any revision. It returns a fault.Invalid that lists every wrong
	// field, fault.NotFound if there is no such product, or catalog.ErrRevision if the product's revision is not in seen.
	Patch(ctx context.Context, id catalog.ProductID, patch catalog.ProductPatch, seen catalog.Revisions, traceparent string,
	) (catalog.Product, error)
	// Delete removes a product. It returns the same errors as Patch.
	Delete(ctx context.Context, id catalog.ProductID, seen catalog.Revisions, traceparent string) error
	// Reprocess requests an image again. It returns fault.NotFound if there is no such product or image.
	Reprocess(ctx context.Context, product catalog.ProductID, image catalog.ImageID, traceparent string,
	) (catalog.Product, error)
	// ReprocessOnce is Reprocess for a request that a client may repeat under the same key, as CreateOnce is Create.
	ReprocessOnce(ctx context.Context, product catalog.ProductID, image catalog.ImageID, key catalog.IdempotencyKey,
		respond func(catalog.Product) (catalog.SavedResponse, error), traceparent string,
	) (saved catalog.SavedResponse, replayed bool, err error)
}

// Deps are the dependencies of a Server.
type Deps struct {
	Catalog  Catalog
	Encoder  *Encoder                        // the encoder of the documents in the cache
	Ready    func(ctx context.Context) error // returns nil if the API can serve; clients see the error's detail
	NewID    func() string                   // returns a new request id
	Now      func() time.Time
	Registry prometheus.Registerer
	Log      *zap.Logger
}

// Server serves the API. Create one with New; run it once.
type Server struct {
	Deps
	cfg      Config
	problems problemTable
	cors     cors
	metrics  *metrics
	states   sync.Pool
	http     *fasthttp.Server
	route    fasthttp.RequestHandler // Fiber's routing
	listener *listener
	draining atomic.Bool
	slots    chan struct{} // one token for each request in progress
	stored   chan struct{} // and one token of these for each that may wait for the database
	memory   *memory
	proxies  proxies

	connections int // the largest number of open connections
}

// New returns a Server that does not listen yet. cfg must be valid.
func New(deps Deps, cfg Config) *Server {
	s := &Server{
		Deps:     deps,
		cfg:      cfg,
		problems: newProblemTable(),
		cors:     newCORS(cfg.CORSOrigins),
		metrics:  newMetrics(deps.Registry),
		states:   sync.Pool{New: func() any { return new(requestState) }},
		slots:    make(chan struct{}, cfg.MaxInFlight),
		stored:   make(chan struct{}, (cfg.MaxInFlight+1)/2),
		proxies:  cfg.trustedProxies(),

		connections: cfg.connections(memoryLimit()),
	}
	s.memory = newMemory(cfg.bytesInFlight(memoryLimit()), cfg.ClientShare, s.metrics)
	app := fiber.New(fiber.Config{
		StrictRouting:                true, // one URL for each resource
		CaseSensitive:                true,
		StreamRequestBody:            true, // readBody reads bodies
		BodyLimit:                    math.MaxInt,
		Concurrency:                  s.connections,
		ReadTimeout:                  cfg.ReadTimeout,
		WriteTimeout:                 cfg.WriteTimeout,
		IdleTimeout:                  cfg.IdleTimeout,
		ReadBufferSize:               cfg.HeaderLimit,
		ErrorHandler:                 s.handleError,
		DisableStartupMessage:        true,
		DisablePreParseMultipartForm: true, // no route accepts one
	})
	for _, r := range s.routes() {
		if r.method == fiber.MethodGet {
			app.Get(r.path, s.limited(&r)) // Fiber adds HEAD
		} else {
			app.Add(r.method, r.path, s.limited(&r))
		}
	}
	s.route = app.Handler()
	s.http = app.Server()
	s.http.Handler = s.serve
	s.http.ErrorHandler = s.refuse
	s.http.ConnState = func(c net.Conn, state fasthttp.ConnState) {
		if c, ok := c.(*conn); ok && state == fasthttp.StateIdle { // the response is written
			c.releaseMemory()
		}
	}
	s.http.Logger = printer{deps.Log}
	return s
}

// Handler returns the handler of all requests, with logging and metrics, for benchmarks.
func (s *Server) Handler() fasthttp.RequestHandler { return s.http.Handler }

// Routes lists all routes, as "GET /products/:id".
func (s *Server) Routes() []string {
	var names []string
	for _, r := range s.routes() {
		names = append(names, r.method+" "+r.path)
	}
	return names
}

// Listen binds the address, so that a taken port is known before anything else starts. Run calls it if it was not called
// before.
func (s *Server) Listen() error {
	ln, err := net.Listen("tcp", s.cfg.Addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.listener = newListener(ln, s.proxies, max(s.connections/s.cfg.ClientShare, 1), s.metrics.refusedConnections)
	return nil
}

// Addr returns the bound address, or "" before Listen.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Run serves requests until ctx ends, then drains. It returns nil if every request in flight was finished in time.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	s.Log.Info("listening", zap.String("addr", s.Addr()))
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", errors.Join(err, s.listener.Close()))
	case <-ctx.Done():
	}
	err := s.drain() //nolint:contextcheck // it starts after the end of ctx, and has its own deadline
	if served := <-served; served != nil {
		err = errors.Join(err, fmt.Errorf("serve: %w", served))
	}
	s.Log.Info("drained", zap.Error(err))
	return err
}

// SetDraining announces that the server will stop soon. From then on it is not ready, and every response closes its
// connection. A client then sends its next request to another server; otherwise the request could arrive while Run closes
// idle connections.
func (s *Server) SetDraining() { s.draining.Store(true) }

// drain stops listening and waits for the requests in flight, each of which lasts at most HandlerTimeout.
func (s *Server) drain() error {
	s.SetDraining()
	s.Log.Info("draining", zap.Duration("timeout", s.cfg.ShutdownTimeout))
	if err := s.listener.Close(); err != nil { // closed here, because Shutdown does nothing if Serve has not started
		s.Log.Warn("listener not closed", zap.Error(err))
	}
	s.listener.closeSilent()
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ShutdownTimeout)
	defer cancel()
	if err := s.http.ShutdownWithContext(ctx); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return nil
}

// printer lets fasthttp log through zap.
type printer struct{ log *zap.Logger }

// Printf implements fasthttp.Logger.
func (p printer) Printf(format string, args ...any) {
	p.log.Warn("http server", zap.String("text", fmt.Sprintf(format, args...)))
}
