// Package httpapi is the HTTP door of Vitrine: routes, JSON shapes, and what every error looks like to a client.
//
// routes.go is the whole surface. A handler decodes, calls the [Catalog], and encodes; it decides nothing. Requests are
// decoded field by field, so that all wrong fields are told at once, the decoder's and the catalogue's together. A product
// has one encoding, made by [Encoder]: GET sends the finished bytes as they come out of the cache, and lists and the answer
// to POST are put together from the same bytes.
//
// What clients write can be told apart from what workers do: an ETag holds the product's revision beside its version, and
// If-Match compares only that. A POST with an Idempotency-Key is answered by [Catalog]'s CreateOnce, with what it stored in
// the product's transaction.
//
// # Invariants
//
// Every answer, also to what is not HTTP, has a request id, one access log line and one count in the metrics: serve in
// observe.go is the only way in. Every error is an RFC 9457 problem, its code is in the one table of problems.go, and a code
// that is not in the table never leaves the process. (One exception: a connection above MaxConnections is closed with a
// plain-text 503 by the server underneath, before there is a request.)
//
// Fiber's strings alias buffers that the next request overwrites. Whatever is handed to the catalogue, the log or the next
// goroutine is a copy; numbers are parsed in place.
//
// # Failure
//
// Of more requests than MaxInFlight the rest is refused at once, before anything is decoded; probes are not. A handler has
// HandlerTimeout; then its context ends and the client gets 503 timeout. A panic is a 500, logged with its stack, and the
// process lives. When Run's context ends, the listener closes, connections that never spoke are closed, and requests in
// flight are finished: HandlerTimeout is below ShutdownTimeout, so none can take too long.
package httpapi
