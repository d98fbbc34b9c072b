package httpapi

import (
	"io"

	"github.com/valyala/fasthttp"
)

// prefetchedBytes is how much of a body fasthttp reads before it calls the handler.
const prefetchedBytes = 8 << 10

// readBody reads the request's body, of at most BodyLimit bytes, after it has reserved memory for it. Handlers find it in
// the request as if fasthttp had read it. Errors are *httpError or errOverloaded.
//
// fasthttp could read bodies itself, but it allocates the declared length at once, for as many requests as there are
// connections. It also continues with the next request on a connection whose body was not read to its end, and takes the
// rest of the body for that request: see hasUnread.
func (s *Server) readBody(ctx *fasthttp.RequestCtx) error {
	stream := ctx.RequestBodyStream()
	if stream == nil {
		return nil
	}
	declared, limit := ctx.Request.Header.ContentLength(), s.cfg.BodyLimit
	if declared > limit {
		return errBodyTooLarge
	}
	var body []byte
	for len(body) != declared {
		if len(body) > limit {
			return errBodyTooLarge
		}
		if len(body) == cap(body) {
			larger, err := s.growBody(ctx, body, declared)
			if err != nil {
				return err
			}
			body = larger
		}
		n, err := stream.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF && (declared < 0 || len(body) == declared) {
			break
		}
		if err != nil {
			return unreadable(err)
		}
	}
	ctx.Request.SetBodyRaw(body)
	return nil
}

// growBody returns body with a larger capacity: the declared length or, for a chunked body, twice the capacity, up to one
// byte more than BodyLimit. It reserves only what the larger capacity has beyond the reservation of the smaller one, which
// is garbage afterwards.
func (s *Server) growBody(ctx *fasthttp.RequestCtx, body []byte, declared int) ([]byte, error) {
	size := declared
	if declared < 0 {
		size = min(max(2*cap(body), prefetchedBytes), s.cfg.BodyLimit+1)
	}
	if more := s.reservedFor(size) - s.reservedFor(cap(body)); more > 0 {
		if err := s.reserve(ctx, more, false); err != nil {
			return nil, err
		}
	}
	return append(make([]byte, 0, size), body...), nil
}

// reservedFor returns how many bytes are reserved for a body of a capacity: at most BodyLimit, which each client may have.
func (s *Server) reservedFor(capacity int) int64 {
	if capacity <= smallBytes {
		return 0
	}
	return int64(min(capacity, s.cfg.BodyLimit))
}

var errBodyTooLarge = &httpError{codeBodyTooLarge, "the body is larger than this server accepts"}

// hasUnread reports whether the client may still send bytes of the request's body. The connection must then be closed:
// fasthttp would take these bytes for the next request.
func hasUnread(ctx *fasthttp.RequestCtx) bool {
	declared := ctx.Request.Header.ContentLength()
	return ctx.Request.IsBodyStream() && (declared < 0 || declared > prefetchedBytes)
}
