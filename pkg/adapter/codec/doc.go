// Package codec runs the child processes that render images. If an image crashes a codec, makes it hang or exhausts its
// memory, only one attempt of that image fails.
//
// [Pool] implements worker.Codec. Package codecproto is the protocol between the pool and the children. Only the children
// need cgo.
//
// Invariants:
//   - A child renders one image at a time.
//   - A child that does not answer within the image's deadline is killed, because SIGKILL is the only way to stop a loop
//     in C; the image fails with codec_timeout. A child whose caller cancels is also killed.
//   - A child that exits, closes its pipe or breaks the protocol is killed and replaced, and its image fails with
//     codec_crashed. If a child cannot be started, the image fails with codec_unavailable, and the pool waits before the
//     next start.
//   - A child is replaced after a number of images, or when its resident memory has grown too large, because C heaps
//     fragment.
//   - After content has crashed a child, a new child in safe mode, without SIMD instructions, renders this content, for
//     every product that has it.
//   - Children end with their parent, because the kernel kills them with the thread that started them
//     (process.ForkThread). They are in process groups of their own, so Ctrl-C at a terminal ends only the parent, which
//     waits for them.
//   - This package builds the environment of a child, which contains no secret of the parent.
//   - [Pool.Close] returns with every child reaped, every descriptor closed and every goroutine ended.
package codec
