// Package codec runs the child processes that render images. An image that crashes a codec, makes it hang or exhausts its
// memory costs one attempt of that image and nothing else.
//
// [Pool] implements worker.Codec. Package codecproto is the protocol with its children. Only they need cgo.
//
// Invariants:
//   - A child renders one image at a time.
//   - A child that does not answer within the image's deadline is killed: SIGKILL is the only way to stop a loop in C
//     (codec_timeout). So is one whose caller cancels.
//   - A child that exits, closes its pipe or breaks the protocol is killed and replaced, and its image fails with
//     codec_crashed. If a child cannot be started, the image fails with codec_unavailable, and the pool waits before the
//     next start.
//   - A child is replaced after a number of images, or when its resident memory has grown too large: C heaps fragment.
//   - Content on which a child was lost is next rendered by a new child in safe mode, without the vector unit, for every
//     product with this content.
//   - Children die with their parent: the kernel kills them with the thread that started them (process.ForkThread). They are
//     in process groups of their own, so Ctrl-C at a terminal ends the parent, which waits for them.
//   - The environment of a child is built by this package and holds no secret of the parent.
//   - [Pool.Close] returns with every child reaped, every descriptor closed and every goroutine ended.
package codec
