// Codecstub takes the place of cmd/codec where the number of images in work matters and their content does not: it waits a
// fixed time for each, burns no CPU, and answers with renditions of one pixel. With it, workers can be counted on a machine
// that has too few CPUs for them.
//
// It speaks the codec's protocol ([vitrine.io/pkg/foundation/codecproto.Serve]), so a worker runs it like any codec when
// VITRINE_CODEC_PATH names it. A codec's environment is not the worker's, so the end of the program's name says how long it
// waits: a copy or a link called codecstub-250ms waits 250 ms for each image; without a duration it is 500 ms. Renditions are
// valid, in every format that a pipeline can ask for, and have their true size of 1 x 1. A source without an image header is
// unsupported_format.
package main
