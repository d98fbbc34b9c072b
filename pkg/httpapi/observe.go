package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/event"
	"vitrine.io/pkg/fault"
)

// exchange is what is known of one request while it is worked on. It is pooled: nothing may keep one.
type exchange struct {
	started     time.Time
	requestID   string
	traceparent string // "" if the client sent none that is valid
	route       *route // nil until one is reached
	repeatable  bool   // carried out twice, it leaves what once would
	err         error
	code        string // of the problem that was answered
	stack       []byte // of a panic
	fields      []zap.Field
}

// exchangeKey is where a request's exchange stands among the request's values.
type exchangeKey struct{}

func exchangeOf(ctx *fasthttp.RequestCtx) *exchange {
	x, _ := ctx.UserValue(exchangeKey{}).(*exchange)
	return x
}

// serve is the only way in: it gives the request its id, sees to it that there is an answer, and reports it.
func (s *Server) serve(ctx *fasthttp.RequestCtx) {
	x := s.begin(ctx)
	defer s.finish(ctx, x)
	if knownMethod(ctx.Method()) == "" {
		s.answer(ctx, x, &httpError{codeUnknownMethod, "this server does not know the method"})
		return
	}
	s.handle(ctx)
}

// refuse answers what could not be read as a request.
func (s *Server) refuse(ctx *fasthttp.RequestCtx, err error) {
	x := s.begin(ctx)
	defer s.finish(ctx, x)
	s.answer(ctx, x, unreadable(err))
	if errors.Is(err, fasthttp.ErrBodyTooLarge) {
		drainBody(ctx.Conn())
	}
}

// unreadable says what is wrong with a request that could not be read.
func unreadable(err error) error {
	var timeout net.Error
	switch {
	case errors.As(err, new(*fasthttp.ErrSmallBuffer)):
		return &httpError{codeHeadTooLarge, "the request's line and headers are larger than this server takes"}
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return &httpError{codeBodyTooLarge, "the body is larger than this server takes"}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &httpError{codeSlowRequest, "the request did not arrive in time"}
	default:
		return &httpError{codeBadRequest, "the request is not valid HTTP"}
	}
}

// drainBody reads what the client is still sending, for a short while: closing a connection with unread bytes makes the
// kernel reset it, and the client would never see the 413.
func drainBody(conn net.Conn) {
	const patience, enough = 200 * time.Millisecond, 8 << 20
	buf := make([]byte, 32<<10)
	for read := 0; read < enough; {
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return
		}
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		read += n
	}
}

func (s *Server) begin(ctx *fasthttp.RequestCtx) *exchange {
	x, _ := s.exchanges.Get().(*exchange)
	*x = exchange{
		started:     s.Now(),
		requestID:   clientRequestID(&ctx.Request.Header),
		traceparent: traceparent(&ctx.Request.Header),
		fields:      x.fields[:0],
	}
	if x.requestID == "" {
		x.requestID = s.NewID()
	}
	ctx.SetUserValue(exchangeKey{}, x)
	s.metrics.inFlight.Inc()
	return x
}

// finish turns a panic into an answer, and reports the request. It must be deferred itself: that is where recover works.
func (s *Server) finish(ctx *fasthttp.RequestCtx, x *exchange) {
	if cause := recover(); cause != nil {
		x.stack = debug.Stack()
		s.answer(ctx, x, fault.Wrap(fmt.Errorf("panic: %v", cause), fault.Internal, codeInternal,
			"the request id leads to the reason in our logs"))
	}
	header := &ctx.Response.Header
	header.Set(headerRequestID, x.requestID)
	header.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	if s.draining.Load() {
		ctx.Response.SetConnectionClose() // the next request has to go elsewhere
	}
	s.report(ctx, x)
	s.metrics.inFlight.Dec()
	ctx.RemoveUserValue(exchangeKey{})
	*x = exchange{fields: x.fields}
	s.exchanges.Put(x)
}

// report writes the access log's line and counts the request.
func (s *Server) report(ctx *fasthttp.RequestCtx, x *exchange) {
	method, path, status := knownMethod(ctx.Method()), noRoute, ctx.Response.StatusCode()
	if method == "" {
		method = "OTHER" // a client must not make series
	}
	if x.route != nil {
		path = x.route.path
	}
	elapsed := s.Now().Sub(x.started)
	s.metrics.observe(method, path, status, elapsed)

	line := s.Log.Check(level(x, status), "request")
	if line == nil {
		return
	}
	bytes := len(ctx.Response.Body())
	if ctx.IsHead() {
		bytes = 0
	}
	x.fields = append(x.fields[:0],
		zap.String("method", method), zap.String("route", path), zap.String("path", pathOf(ctx)),
		zap.Int("status", status), zap.Duration("duration", elapsed), zap.Int("bytes", bytes),
		zap.String("request_id", x.requestID))
	if x.traceparent != "" {
		x.fields = append(x.fields, zap.String("trace_id", event.TraceID(x.traceparent)))
	}
	if x.code != "" {
		x.fields = append(x.fields, zap.String("code", x.code))
	}
	if status >= http.StatusInternalServerError {
		x.fields = append(x.fields, zap.Error(x.err))
	}
	if x.stack != nil {
		x.fields = append(x.fields, zap.ByteString("stack", x.stack))
	}
	line.Write(x.fields...)
}

// level is how loud a request's line is: probes are only heard by who listens closely, our own faults by everyone. What was
// shed is counted; a line at error level for each would be one more load.
func level(x *exchange, status int) zapcore.Level {
	switch {
	case x.route != nil && x.route.quiet:
		return zapcore.DebugLevel
	case status >= http.StatusInternalServerError && x.code != codeUnknownMethod && x.code != codeOverloaded:
		return zapcore.ErrorLevel
	default:
		return zapcore.InfoLevel
	}
}

// answer makes err the answer: one problem, decided by one table.
func (s *Server) answer(ctx *fasthttp.RequestCtx, x *exchange, err error) {
	v := s.problems.verdict(err)
	x.err, x.code = err, v.Code
	resp := &ctx.Response
	resp.ResetBody()
	resp.SetStatusCode(v.Status)
	resp.Header.SetContentType(problemMIME)
	resp.Header.Set(fiber.HeaderCacheControl, "no-store")
	if wait := v.retryAfter(x.repeatable); wait != "" {
		resp.Header.Set(fiber.HeaderRetryAfter, wait)
	}
	resp.SetBodyRaw(v.body(pathOf(ctx), x.requestID))
}

// fail is Fiber's error handler: what a handler returned, or that there was none.
func (s *Server) fail(c *fiber.Ctx, err error) error {
	s.answer(c.Context(), exchangeOf(c.Context()), err)
	return nil
}

// within gives a route's handler its deadline, and notes that the route was reached. When as many requests are worked on as
// we take, it refuses more at once: one that waited in line would hold memory, and be answered when nobody listens any more.
func (s *Server) within(r *route) fiber.Handler {
	return func(c *fiber.Ctx) error {
		x := exchangeOf(c.Context())
		x.route, x.repeatable = r, r.repeatable
		if !r.quiet {
			select {
			case s.slots <- struct{}{}:
				defer func() { <-s.slots }()
			default:
				s.metrics.shed.Inc()
				return errOverloaded
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.HandlerTimeout)
		defer cancel()
		return r.handle(ctx, c)
	}
}

// pathOf returns a copy of the request's path, as the client wrote it, without its query.
func pathOf(ctx *fasthttp.RequestCtx) string { return string(ctx.URI().PathOriginal()) }

// knownMethod returns the method's name, or "" for one that Fiber does not know.
func knownMethod(method []byte) string {
	switch string(method) { // compared in place, without a copy
	case http.MethodGet:
		return http.MethodGet
	case http.MethodHead:
		return http.MethodHead
	case http.MethodPost:
		return http.MethodPost
	case http.MethodPut:
		return http.MethodPut
	case http.MethodPatch:
		return http.MethodPatch
	case http.MethodDelete:
		return http.MethodDelete
	case http.MethodOptions:
		return http.MethodOptions
	case http.MethodConnect:
		return http.MethodConnect
	case http.MethodTrace:
		return http.MethodTrace
	default:
		return ""
	}
}
