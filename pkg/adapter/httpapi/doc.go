// Package httpapi serves Vitrine's HTTP API: routes, JSON formats, and the response to every error.
//
// routes.go lists all routes. A handler decodes the request (request.go, query.go), calls the [Catalog], and encodes the
// response (response.go); it has no business rules. Requests are decoded field by field, so that one response lists all
// wrong fields, those of the decoder and those of the catalogue. A product has one encoding, made by [Encoder]: GET sends
// the bytes from the cache, and lists and the response to POST contain the same bytes.
//
// An ETag holds the product's revision beside its version, and If-Match compares only the revision, which clients change and
// workers do not. For a POST with an Idempotency-Key, the methods of [Catalog] that end in Once store the response in the
// transaction of the change and return the stored one to every repetition (once.go). A route refuses parameters that it does
// not list, and CORS headers are added where every request ends (cors.go).
//
// # Invariants
//
// Every response has a request id, one access log line and one count in the metrics, because all requests pass through
// serve or refuse in observe.go. This includes responses to bytes that are not HTTP. Every error is an RFC 9457 problem
// whose code is in the table of problems.go; a code that is not in the table never leaves the process. There is one
// exception: fasthttp closes a connection above MaxConnections with a plain-text 503, before there is a request.
//
// Fiber's strings alias buffers that the next request overwrites. Everything that is passed to the catalogue, the log or
// another goroutine is a copy; numbers are parsed in place.
//
// # Failure
//
// Requests beyond MaxInFlight are rejected before anything is decoded; probes never are. After HandlerTimeout the context
// of a handler ends, and the client gets 503 timeout. A panic is a 500, logged with its stack, and the process continues.
// When Run's context ends, the listener closes, connections without a request are closed, and requests in flight are
// finished: HandlerTimeout is below ShutdownTimeout.
package httpapi
