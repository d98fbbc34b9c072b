// Command codec is the child process that renders images: the only program that links libvips.
//
// The codec pool of a worker starts it and exchanges frames with it over stdin and stdout; it ends when its stdin ends. It
// may be killed at any time: it holds no state and no secrets. After the start of libvips it enters a sandbox, in which it
// can compute and write to stdout, but cannot open files, use the network or start programs.
package main
