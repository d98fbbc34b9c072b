// Package ssimulacra2 tells how well a compressed picture stands in for the original, as people see it.
//
// The metric is Jon Sneyers' SSIMULACRA 2.1 (https://github.com/cloudinary/ssimulacra2): both pictures are halved up to five
// times in linear light; on each scale the XYB planes are compared by structure (SSIM without its luminance denominator) and
// by edges, those that are lost and those that have come; 108 averages are weighted as people's opinions on thousands of
// pictures had it. Nothing random, nothing learned here: the weights are the published ones.
//
// A [Reference] keeps what follows from the original alone, about half of the work and 48 bytes a pixel, for several
// comparisons. It is for one goroutine at a time.
package ssimulacra2
