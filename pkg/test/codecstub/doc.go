// Codecstub replaces cmd/codec in tests for which the number of images in progress matters and their content does not. It
// waits a fixed time for each image, uses no CPU, and answers with renditions of one pixel. With it, tests can run more
// workers than the machine has CPUs for.
//
// It speaks the codec's protocol ([vitrine.io/pkg/foundation/codecproto.Serve]), so a worker runs it as its codec if
// VITRINE_CODEC_PATH names it. A codec does not get the worker's environment, so the pause is the suffix of the program's
// name: a copy or a link named codecstub-250ms waits 250 ms for each image; without a suffix it waits 500 ms. Renditions are
// valid, in every format that a pipeline supports, and report their size of 1 x 1. A source without an image header fails
// with unsupported_format.
package main
