// Package codecproto is the protocol between a worker and its codec processes: [WriteRequest], [WriteComparison],
// [ReadHello], [ReadAnswer] and [ReadScores] are the parent's side, [Serve] is the child's.
//
// They communicate over the child's stdin and stdout in frames: a length (4 bytes, big-endian), a type (1 byte) and a
// payload, which is JSON for a hello, a request, an answer, scores and a failure, and raw bytes for a source and encoded
// files.
//
// Invariants:
//   - Neither side trusts a length: each type has its limit, and memory grows with what has arrived.
//   - An answer must be complete, and must be what the specification requests: each output is there, or dropped for a known
//     reason, but never the default one or a whole rendition.
//   - The codec process links this package, so the package imports no logger and no metrics.
package codecproto
