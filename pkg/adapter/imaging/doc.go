// Package imaging renders one image as the web-ready files that a pipeline specification requests, and compares such files
// with their source ([Compare]).
//
// The package calls libvips, a C library, through govips. It is the only package with cgo, and only cmd/codec, a child
// process, may link it: a crash in C cannot be recovered, a loop in C cannot be interrupted, and a source comes from an
// untrusted server. [Render] must therefore run in a process that its parent can kill.
//
// [Render] takes these steps: check the specification, detect the format, read the header, plan the sizes, decode, then for
// each size scale, frame and encode, and at the end select the outputs that stay. Invariants:
//   - The format is detected by a table of magic bytes in this package and must be in spec.Accept, before libvips reads any
//     byte.
//   - In every format, a body is corrupt if it ends before the end that its container announces, or if libvips cannot
//     decode it without an error. A GIF with fewer codes than pixels is corrupt, too. A partly grey image is never
//     returned.
//   - The number of pixels (frames x width x height) is checked from the header, before anything is decoded and before
//     memory is allocated for it.
//   - The source is decoded once, at the largest size that is needed. Each smaller size is scaled from the one above it.
//   - Nothing is enlarged. A box that is wider than the source is reduced to the source. A cover or contain frame is
//     reduced and keeps its proportions, so that the image in it is not enlarged. No side exceeds [MaxSide] pixels.
//   - Outputs are upright, in 8-bit sRGB, converted by the source's own profile if it has one, and carry no metadata. JPEG
//     has no transparency: transparent pixels are put on the background.
//   - Outputs that would be equal are encoded once and share one body.
//   - An output with as many pixels as the source and more bytes is encoded at a lower quality, or dropped. An output is
//     also dropped if a better one of its rendition has no more bytes. The default output stays, and every rendition keeps a
//     file of a widely supported format if it had one.
//   - The header of every output is read back before it is returned.
//   - The placeholder is a ThumbHash of the smallest size.
//
// Every error of Render is a *media.Failure. The text of libvips goes into its cause, never into its detail, because the
// text may contain names of files and memory addresses of this process.
package imaging
