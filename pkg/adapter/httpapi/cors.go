package httpapi

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// What pages of other origins may send and read, and how long browsers may remember it.
const (
	corsMethods = "GET,HEAD,POST,PATCH,DELETE"
	corsSend    = "Content-Type,Idempotency-Key,If-Match,If-None-Match,Traceparent,X-Request-Id"
	corsRead    = "Accept-Patch,ETag,Idempotent-Replayed,Link,Location,Retry-After,X-Request-Id"
	corsMaxAge  = 10 * time.Minute // below the caps of Chromium (2 h) and Firefox (24 h)
)

// cors lets pages of some origins read the responses (https://fetch.spec.whatwg.org/#http-cors-protocol). It is not Fiber's
// middleware, because that does not see requests that end before the routes, and a page that cannot read a 413 sees only a
// network error. Without origins it does nothing. Credentials are never allowed.
type cors struct{ origins []string }

func newCORS(origins []string) cors {
	lower := make([]string, len(origins))
	for i, origin := range origins {
		lower[i] = strings.ToLower(origin)
	}
	return cors{lower}
}

func (p cors) allowsAll() bool { return slices.Contains(p.origins, "*") }

// allow adds the headers that let the page that has sent the request read the response.
func (p cors) allow(req *fasthttp.RequestHeader, resp *fasthttp.ResponseHeader) {
	if len(p.origins) == 0 {
		return
	}
	origin := strings.ToLower(string(req.Peek(fiber.HeaderOrigin)))
	if p.allowsAll() {
		p.expose(resp, "*")
		return
	}
	resp.Add(fiber.HeaderVary, fiber.HeaderOrigin)
	if slices.Contains(p.origins, origin) {
		p.expose(resp, origin)
	}
}

// allowUnread is allow for a request whose headers were not read, or are lost. Every page may read the response: it is a
// problem that holds nothing of any client.
func (p cors) allowUnread(req *fasthttp.RequestHeader, resp *fasthttp.ResponseHeader) {
	if len(req.Peek(fiber.HeaderOrigin)) > 0 {
		p.allow(req, resp)
	} else if len(p.origins) > 0 {
		p.expose(resp, "*")
	}
}

func (p cors) expose(resp *fasthttp.ResponseHeader, origin string) {
	resp.Set(fiber.HeaderAccessControlAllowOrigin, origin)
	resp.Set(fiber.HeaderAccessControlExposeHeaders, corsRead)
}

// preflight responds to a browser that asks whether a page may send a request, and reports whether ctx is such a request.
func (p cors) preflight(ctx *fasthttp.RequestCtx) bool {
	req, resp := &ctx.Request.Header, &ctx.Response.Header
	if len(p.origins) == 0 || !req.IsOptions() || len(req.Peek(fiber.HeaderOrigin)) == 0 ||
		len(req.Peek(fiber.HeaderAccessControlRequestMethod)) == 0 {
		return false
	}
	resp.Add(fiber.HeaderVary, fiber.HeaderAccessControlRequestMethod+", "+fiber.HeaderAccessControlRequestHeaders)
	resp.Set(fiber.HeaderAccessControlAllowMethods, corsMethods)
	resp.Set(fiber.HeaderAccessControlAllowHeaders, corsSend)
	resp.Set(fiber.HeaderAccessControlMaxAge, strconv.Itoa(int(corsMaxAge.Seconds())))
	ctx.SetStatusCode(fasthttp.StatusNoContent)
	return true
}
