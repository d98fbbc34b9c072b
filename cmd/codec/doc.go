// Command codec is the child process that makes renditions: the only program that links libvips.
//
// It is started by a worker's codec pool and speaks its frames on stdin and stdout; it ends when its stdin does. It is made
// to be killed: it holds no state, no secrets, and nothing but the image it was given. Once libvips has started it enters
// a sandbox, in which it can compute, and answer on stdout, but open no file, reach no network and start no program.
package main
