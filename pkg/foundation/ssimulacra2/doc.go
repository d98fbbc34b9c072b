// Package ssimulacra2 measures how similar a compressed image looks to its original.
//
// The metric is Jon Sneyers' SSIMULACRA 2.1 (https://github.com/cloudinary/ssimulacra2): both images are halved up to five
// times in linear light. On each scale the XYB planes are compared by structure (SSIM without its luminance denominator) and
// by edges, both lost and added ones. The score is a weighted sum of 108 averages. The weights are the published ones,
// fitted to people's opinions on thousands of images. The result is deterministic.
//
// A [Reference] keeps what is computed from the original alone, about half of the work and 48 bytes per pixel, for several
// comparisons. It must not be used concurrently.
package ssimulacra2
