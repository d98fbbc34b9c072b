// Package imaging turns one picture into its web-ready renditions.
//
// Everything here calls libvips, a C library, through govips: it is the only room with cgo, and only cmd/codec, a child
// process, may link it. A crash in C cannot be recovered, a loop in C cannot be interrupted, and a source is whatever a
// stranger's server sent; so whoever calls [Render] has to be a process that somebody else can kill.
//
// [Render] reads as a list of steps: recognise, check the frame, read the header, decode, normalise, then for each size
// scale, cut and encode. Invariants:
//   - The format is recognised by our own table of magic bytes and must be in spec.Accept, before libvips sees a byte.
//   - A body that ends before its own container says it does is corrupt, in every format; so is one that libvips cannot
//     decode without an error, and a GIF with fewer codes than pixels. No half-grey picture is ever returned.
//   - The number of pixels (frames x width x height) is checked from the header, before anything is decoded and
//     before memory is taken for it.
//   - The source is decoded once, at the largest size that is needed; each smaller size is made from the one above it.
//   - Nothing is enlarged. A box wider than the source shrinks to the source; a cover or contain frame shrinks with its
//     shape kept, so that its picture need not grow. A side never exceeds [MaxSide].
//   - Results are upright, 8-bit sRGB by the source's own profile if it has one, and carry no metadata. JPEG has no
//     transparency: the background shows through.
//   - Results that would be equal are encoded once and share one body.
//   - What has as many pixels as the source and more bytes is encoded again, or dropped; so is what a better result of its
//     rendition makes needless. The default output stays, and every rendition keeps a file for those who read least.
//   - Every output's header is read back before it is returned.
//   - The placeholder is a ThumbHash of the smallest picture that is in memory at the end.
//
// Every error of Render is a *media.Failure. What libvips said goes into its cause, never into its detail: the text may
// name files and addresses of ours.
package imaging
