package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

// requestState is the state of one request while it is in progress. It is pooled: do not keep one.
type requestState struct {
	started     time.Time
	requestID   string
	traceparent string // W3C trace context; "" if the client sent no valid one
	route       *route // nil if no route has matched
	repeatable  bool   // a repetition has no further effect
	err         error
	code        string // of the problem that was sent
	stack       []byte // of a panic
	fields      []zap.Field
}

// stateKey is the key of a request's state among its user values.
type stateKey struct{}

func stateOf(ctx *fasthttp.RequestCtx) *requestState {
	state, _ := ctx.UserValue(stateKey{}).(*requestState)
	return state
}

// serve handles every request: it gives the request its id, makes sure that there is a response, and logs it.
func (s *Server) serve(ctx *fasthttp.RequestCtx) {
	state := s.begin(ctx)
	defer s.finish(ctx, state)
	defer s.cors.allow(&ctx.Request.Header, &ctx.Response.Header) // also after a panic
	if s.cors.preflight(ctx) {
		return
	}
	if knownMethod(ctx.Method()) == "" {
		s.sendProblem(ctx, state, &httpError{codeUnknownMethod, "this server does not know the method"})
		return
	}
	s.route(ctx)
}

// refuse responds with a problem when the server could not read a request.
func (s *Server) refuse(ctx *fasthttp.RequestCtx, err error) {
	state := s.begin(ctx)
	defer s.finish(ctx, state)
	s.sendProblem(ctx, state, unreadable(err))
	s.cors.allowUnread(&ctx.Request.Header, &ctx.Response.Header)
	closeUnread(ctx)
}

// unreadable returns the problem with a request that could not be read.
func unreadable(err error) error {
	var timeout net.Error
	switch {
	case errors.As(err, new(*fasthttp.ErrSmallBuffer)):
		return &httpError{codeHeadTooLarge, "the request's line and headers are larger than this server accepts"}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &httpError{codeSlowRequest, "the request did not arrive in time"}
	default:
		return &httpError{codeBadRequest, "the request is not valid HTTP"}
	}
}

// reserveResponse reserves memory for a large response, or replaces it by a problem. The response to a change is not
// replaced, because the change is made.
func (s *Server) reserveResponse(ctx *fasthttp.RequestCtx, state *requestState) {
	n := int64(len(ctx.Response.Body()))
	if c, ok := ctx.Conn().(*conn); ok && ctx.IsGet() {
		n -= c.reservedBytes() // for a list, before it was read
	}
	if n <= smallBytes || ctx.IsHead() {
		return
	}
	if err := s.reserve(ctx, n, !ctx.IsGet()); err != nil {
		s.sendProblem(ctx, state, err)
	}
}

// closeUnread closes the connection after the response, because the client may still send bytes of this request.
func closeUnread(ctx *fasthttp.RequestCtx) {
	ctx.Response.SetConnectionClose()
	if c, ok := ctx.Conn().(*conn); ok {
		c.lingering.Store(true)
	}
}

func (s *Server) begin(ctx *fasthttp.RequestCtx) *requestState {
	state, _ := s.states.Get().(*requestState)
	*state = requestState{
		started:     s.Now(),
		traceparent: traceparent(&ctx.Request.Header),
		fields:      state.fields[:0],
	}
	if id := ctx.Request.Header.Peek(headerRequestID); fitForLog(id) {
		state.requestID = string(id)
	} else {
		state.requestID = s.NewID()
	}
	ctx.SetUserValue(stateKey{}, state)
	s.metrics.inFlight.Inc()
	return state
}

// finish turns a panic into a response, and reports the request. It must be deferred directly, because recover works only
// in a deferred function.
func (s *Server) finish(ctx *fasthttp.RequestCtx, state *requestState) {
	if cause := recover(); cause != nil {
		state.stack = debug.Stack()
		s.sendProblem(ctx, state, fault.Wrap(fmt.Errorf("panic: %v", cause), fault.Internal, codeInternal,
			"the server's log has the cause under the request id"))
	}
	if hasUnread(ctx) {
		closeUnread(ctx)
	}
	s.reserveResponse(ctx, state)
	header := &ctx.Response.Header
	header.Set(headerRequestID, state.requestID)
	header.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	if s.draining.Load() {
		ctx.Response.SetConnectionClose() // the client's next request goes to another server
	}
	s.logRequest(ctx, state)
	s.metrics.inFlight.Dec()
	ctx.RemoveUserValue(stateKey{})
	*state = requestState{fields: state.fields}
	s.states.Put(state)
}

// logRequest writes the access log's line and counts the request.
func (s *Server) logRequest(ctx *fasthttp.RequestCtx, state *requestState) {
	method, path, status := knownMethod(ctx.Method()), noRoute, ctx.Response.StatusCode()
	if method == "" {
		method = "OTHER" // clients must not create series
	}
	if state.route != nil {
		path = state.route.path
	}
	elapsed := s.Now().Sub(state.started)
	s.metrics.observe(method, path, status, elapsed)

	line := s.Log.Check(level(state, status), "request")
	if line == nil {
		return
	}
	bytes := len(ctx.Response.Body())
	if ctx.IsHead() {
		bytes = 0
	}
	state.fields = append(state.fields[:0],
		zap.String("method", method), zap.String("route", path), zap.String("path", pathOf(ctx)),
		zap.Int("status", status), zap.Duration("duration", elapsed), zap.Int("bytes", bytes),
		zap.String("request_id", state.requestID))
	if state.traceparent != "" {
		state.fields = append(state.fields, zap.String("trace_id", event.TraceID(state.traceparent)))
	}
	if state.code != "" {
		state.fields = append(state.fields, zap.String("code", state.code))
	}
	if status >= http.StatusInternalServerError {
		state.fields = append(state.fields, zap.Error(state.err))
	}
	if state.stack != nil {
		state.fields = append(state.fields, zap.ByteString("stack", state.stack))
	}
	line.Write(state.fields...)
}

// level returns the level of a request's log line: debug for probes, error for responses with a status from 500. A
// rejection because of overload, or of a list that took too long, is logged at info level: the metrics count it, and more
// lines at error level would add load.
func level(state *requestState, status int) zapcore.Level {
	expectedCodes := [...]string{codeUnknownMethod, codeOverloaded, codeListsBusy, codeListTimeout}
	switch {
	case state.route != nil && state.route.quiet:
		return zapcore.DebugLevel
	case status >= http.StatusInternalServerError && !slices.Contains(expectedCodes[:], state.code):
		return zapcore.ErrorLevel
	default:
		return zapcore.InfoLevel
	}
}

// sendProblem makes the problem for err the response.
func (s *Server) sendProblem(ctx *fasthttp.RequestCtx, state *requestState, err error) {
	p := s.problems.problemOf(err)
	state.err, state.code = err, p.Code
	ctx.Response.ResetBody()
	p.response(pathOf(ctx), state.requestID, state.repeatable).send(&ctx.Response)
}

// handleError is Fiber's error handler. err comes from a handler, or says that no route matched.
func (s *Server) handleError(c *fiber.Ctx, err error) error {
	s.sendProblem(c.Context(), stateOf(c.Context()), err)
	return nil
}

// limited gives a route's handler its deadline and records the route. When MaxInFlight requests are in progress, it refuses
// more at once: a queued request would hold memory and be answered after its client has given up. Half of the requests may
// wait for the database. The other half is for cached reads, which go on while the database does not answer.
func (s *Server) limited(r *route) fiber.Handler {
	return func(c *fiber.Ctx) error {
		state := stateOf(c.Context())
		state.route, state.repeatable = r, r.repeatable
		if err := s.readBody(c.Context()); err != nil {
			return err
		}
		if !r.quiet {
			if !s.take(s.slots) {
				return errOverloaded
			}
			defer func() { <-s.slots }()
		}
		if !r.quiet && !r.cached {
			if !s.take(s.stored) {
				return errOverloaded
			}
			defer func() { <-s.stored }()
		}
		if wrong := wrongParams(c); !r.decodes && len(wrong) > 0 {
			return wrong
		}
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.HandlerTimeout)
		defer cancel()
		return r.handle(ctx, c)
	}
}

// take takes a slot, or counts a refused request if none is free.
func (s *Server) take(slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	default:
		s.metrics.shed.WithLabelValues(shedRequests).Inc()
		return false
	}
}

// pathOf returns a copy of the request's path, as the client wrote it, without its query.
func pathOf(ctx *fasthttp.RequestCtx) string { return string(ctx.URI().PathOriginal()) }

// knownMethod returns the method's name, or "" for one that Fiber does not know.
func knownMethod(method []byte) string {
	for _, name := range fiber.DefaultMethods {
		if string(method) == name { // compared in place, without a copy
			return name
		}
	}
	return ""
}
