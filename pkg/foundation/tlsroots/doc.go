// Package tlsroots reads who may vouch for a server: the authorities whose certificates a TLS client accepts.
//
// It holds nothing. A file is read when it is asked for and at no other time; who wants to see a renewed one asks again.
package tlsroots
