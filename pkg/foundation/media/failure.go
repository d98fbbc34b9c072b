package media

import (
	"errors"
	"maps"
	"time"
)

// Code says why a picture could not be made. Codes are public and stable.
type Code string

// The codes.
const (
	URLForbidden       Code = "url_forbidden"       // the address, port or scheme may not be reached
	DNSFailed          Code = "dns_failed"          // the host's name does not resolve
	ConnectFailed      Code = "connect_failed"      // no connection, or it broke
	TLSFailed          Code = "tls_failed"          // no trusted TLS connection
	Timeout            Code = "timeout"             // the source was too slow
	HTTPStatus         Code = "http_status"         // the source answered that it will not serve the picture
	SourceUnavailable  Code = "source_unavailable"  // the source answered that it cannot serve it now (408, 425, 429, 5xx)
	TooManyRedirects   Code = "too_many_redirects"  //
	Incomplete         Code = "incomplete"          // the body ended before its announced length
	TooLarge           Code = "too_large"           // more bytes than limits.maxBytes
	UnsupportedFormat  Code = "unsupported_format"  // not a picture, or not of an accepted format
	Corrupt            Code = "corrupt"             // truncated or damaged
	TooManyPixels      Code = "too_many_pixels"     // more than limits.maxPixels
	CodecCrashed       Code = "codec_crashed"       // the codec died on it
	CodecTimeout       Code = "codec_timeout"       // the codec was killed at limits.deadline
	WorkerCrashed      Code = "worker_crashed"      // workers kept dying on it
	StorageFailed      Code = "storage_failed"      // the object store did not take the renditions
	CodecUnavailable   Code = "codec_unavailable"   // no codec could be started
	PipelineUnknown    Code = "pipeline_unknown"    // the requested specification is not on record
	PipelineImpossible Code = "pipeline_impossible" // the specification asks for what this codec cannot make
	HostBusy           Code = "host_busy"           // as many downloads from the host as fetch.perHost allows
)

// Class says what follows from a code.
type Class int

// The classes.
const (
	Permanent  Class = iota + 1 // trying again cannot help: the picture fails
	Transient                   // the source or the picture may do better later: an attempt is spent
	Deferrable                  // not the picture's fault: later, no attempt spent
)

// classes is the one table of what follows from which code.
var classes = map[Code]Class{
	URLForbidden:       Permanent,
	DNSFailed:          Transient,
	ConnectFailed:      Transient,
	TLSFailed:          Transient,
	Timeout:            Transient,
	HTTPStatus:         Permanent,
	SourceUnavailable:  Transient,
	TooManyRedirects:   Permanent,
	Incomplete:         Transient,
	TooLarge:           Permanent,
	UnsupportedFormat:  Permanent,
	Corrupt:            Permanent,
	TooManyPixels:      Permanent,
	CodecCrashed:       Transient,
	CodecTimeout:       Transient,
	WorkerCrashed:      Permanent,
	StorageFailed:      Deferrable,
	CodecUnavailable:   Deferrable,
	PipelineUnknown:    Deferrable,
	PipelineImpossible: Permanent,
	HostBusy:           Deferrable,
}

// Class returns what follows from the code. A code that is not in the table is nobody's but ours.
func (c Code) Class() Class {
	if class, ok := classes[c]; ok {
		return class
	}
	return Deferrable
}

// Failure is the error of everything that works on a picture: a code, and a sentence that a client may read. The cause is
// for logs.
type Failure struct {
	Code       Code
	Detail     string
	RetryAfter time.Duration // what the source asked for; 0: nothing
	Content    string        // SHA-256 in hex of the source that a codec did not survive; "": it did
	Cause      error
}

// Fail returns a Failure.
func Fail(code Code, detail string, cause error) *Failure {
	return &Failure{Code: code, Detail: detail, Cause: cause}
}

// Error returns the code, the detail and the cause.
func (f *Failure) Error() string {
	text := string(f.Code) + ": " + f.Detail
	if f.Cause != nil {
		text += ": " + f.Cause.Error()
	}
	return text
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Cause }

// FailureOf returns the Failure inside err, or nil.
func FailureOf(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	return nil
}

// CodecLost reports whether a codec was lost by the failure: it died, said that it has no memory left or fails in an unknown
// way, or had to be killed at its deadline. No failure has lost none.
func (f *Failure) CodecLost() bool {
	return f != nil && (f.Code == CodecCrashed || f.Code == CodecTimeout)
}

// Codes returns every code with its class, for tables that must cover them all.
func Codes() map[Code]Class { return maps.Clone(classes) }
