// Package codec keeps a few child processes that make renditions, so that a picture which kills, hangs or bloats its
// codec costs one attempt of one picture and nothing else.
//
// [Pool] is the parent's side: it implements worker.Codec. [Serve] is the child's side, used by cmd/codec. They talk over
// the child's stdin and stdout in frames: a length (4 bytes, big-endian), a type (1 byte) and a payload, which is JSON for
// a request, an answer and a failure, and raw bytes for a picture. Neither side trusts a length: each type has its limit,
// and memory grows with what has arrived, never with what was announced. Only the child needs cgo.
//
// Invariants:
//   - A child handles one picture at a time. An answer must be complete, and must be what the specification asks for:
//     each output is there, or dropped for a known reason, but never the default one or a whole rendition.
//   - A picture that is not answered within its deadline ends with SIGKILL: nothing else stops a loop in C (codec_timeout).
//     So does one whose caller gives up.
//   - A child that exits, closes its pipe or says what it should not is killed and replaced, and the picture it held fails
//     with codec_crashed. A child that cannot be started is codec_unavailable; starting is then left alone for a while.
//   - A child is replaced after a number of pictures, or when its resident memory has grown too large: C heaps fragment.
//   - A picture that has killed one gets a child of its own for its next try, without the vector unit, whoever brings it.
//   - Children die with their parent: the kernel kills them with the thread that started them, and a goroutine holds that
//     thread as long as the child lives. They are in process groups of their own, so Ctrl-C at a terminal ends the parent,
//     which lets them finish.
//   - A child's environment is what is written in this package: none of the parent's secrets.
//   - [Pool.Close] returns with every child reaped, every descriptor closed and every goroutine ended.
package codec
