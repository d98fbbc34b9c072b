// Package tlsroots reads the certificate authorities that a TLS client trusts.
//
// It keeps no state: each call of [Pool] reads its file. A caller that needs renewed authorities calls Pool again.
package tlsroots
