// Package thumbhash makes some twenty bytes that a page shows as a blurred picture until the picture itself has come.
//
// It is ThumbHash as Evan Wallace has published it (https://evanw.github.io/thumbhash/): the mean colour, and the first
// terms of a cosine transform of brightness, of two differences of colour and, if the picture has any, of transparency.
// Whoever shows it needs the JavaScript, Swift or other decoder of that page.
package thumbhash
