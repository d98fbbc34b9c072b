// Package thumbhash computes about twenty bytes that a page shows as a blurred image until the image itself is loaded.
//
// The format is ThumbHash by Evan Wallace (https://evanw.github.io/thumbhash/): the mean colour, and the first terms of a
// cosine transform of the brightness, of two colour differences and, if the image has any, of the transparency. Clients
// decode it with the JavaScript, Swift or other decoder of that page.
package thumbhash
