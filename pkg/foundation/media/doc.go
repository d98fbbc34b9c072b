// Package media is the vocabulary of image processing: why an image cannot be processed, and what processing returns.
//
// A [Failure] has a [Code] and a sentence that a client may read. One table gives each code its [Class], from which the
// worker decides whether the image fails, is retried, or waits without counting an attempt. [Rendered] is what the codec
// returns for one source: encoded files, not yet stored, and those that were dropped for their size.
//
// Codes and reasons are public and stable. The package has no state and no dependencies but the pipeline's formats.
package media
