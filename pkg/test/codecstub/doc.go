// Codecstub takes the place of cmd/codec where the pictures do not matter but how many of them are in work does: it waits a
// fixed time for each, burns no CPU, and answers with renditions of one pixel. With it, workers can be counted on a machine
// that has too few CPUs for them.
//
// It speaks the codec's protocol ([vitrine.io/pkg/codec.Serve]), so a worker runs it like any codec, when VITRINE_CODEC_PATH
// names it. A codec's environment is not the worker's, so how long it waits is the end of its own name: a copy or a link
// called codecstub-250ms waits 250 ms for each picture; without a duration it is 500 ms. Renditions are valid, in every
// format that a pipeline can ask for, and say their true size of 1 x 1. What is no picture, by its header, is
// unsupported_format.
package main
