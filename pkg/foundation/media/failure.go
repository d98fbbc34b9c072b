package media

import (
	"errors"
	"maps"
	"time"
)

// Code is the reason why an image could not be processed. Codes are public and stable.
type Code string

// The codes.
const (
	URLForbidden       Code = "url_forbidden"       // the address, port or scheme is not allowed
	DNSFailed          Code = "dns_failed"          // the host's name does not resolve
	ConnectFailed      Code = "connect_failed"      // no connection, or it broke
	TLSFailed          Code = "tls_failed"          // no trusted TLS connection
	Timeout            Code = "timeout"             // the source was too slow
	HTTPStatus         Code = "http_status"         // the source refused the request with a permanent status
	SourceUnavailable  Code = "source_unavailable"  // the source refused it with a temporary status (408, 425, 429, 5xx)
	TooManyRedirects   Code = "too_many_redirects"  // more redirects than the fetcher follows
	Incomplete         Code = "incomplete"          // the body ended before its announced length
	TooLarge           Code = "too_large"           // more bytes than limits.maxBytes
	UnsupportedFormat  Code = "unsupported_format"  // not an image, or not of an accepted format
	Corrupt            Code = "corrupt"             // truncated or damaged
	TooManyPixels      Code = "too_many_pixels"     // more than limits.maxPixels
	CodecCrashed       Code = "codec_crashed"       // the codec process died, or failed in an unknown way
	CodecTimeout       Code = "codec_timeout"       // the codec was killed at limits.deadline
	WorkerCrashed      Code = "worker_crashed"      // several workers died while they processed it
	StorageFailed      Code = "storage_failed"      // the object store failed to store or return an object
	CodecUnavailable   Code = "codec_unavailable"   // no codec could be started
	PipelineUnknown    Code = "pipeline_unknown"    // the requested specification is not stored
	PipelineImpossible Code = "pipeline_impossible" // the specification requests what this codec cannot render
	HostBusy           Code = "host_busy"           // as many downloads from the host or network as fetch.perHost allows

	ResolverUnavailable Code = "resolver_unavailable" // the DNS of this installation does not answer
	EgressUnavailable   Code = "egress_unavailable"   // this installation reaches no source
)

// Class is what the worker does about a code.
type Class int

// The classes.
const (
	Permanent  Class = iota + 1 // a retry cannot help: the image fails
	Transient                   // a retry may help: an attempt is counted
	Deferrable                  // not the image's fault: retried later without counting an attempt
)

// classes has the class of each code.
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

	ResolverUnavailable: Deferrable,
	EgressUnavailable:   Deferrable,
}

// Class returns the class of the code, Deferrable for a code that is not in the table: it can only be a bug of this program.
func (c Code) Class() Class {
	if class, ok := classes[c]; ok {
		return class
	}
	return Deferrable
}

// IsOutage reports whether the code says that the network of this installation is down. The age of a request does not count
// against it then, because no source can be blamed.
func (c Code) IsOutage() bool { return c == ResolverUnavailable || c == EgressUnavailable }

// Failure is the error of all packages that process an image. Code and Detail are shown to clients; Cause is for logs.
type Failure struct {
	Code       Code
	Detail     string
	RetryAfter time.Duration // from the source's Retry-After; 0: none
	Host       string        // of HostBusy: the busy host, if it is not the one that the job counts as; "": that one
	Content    string        // SHA-256 in hex of the source on which a codec was lost; "": none was lost
	Cause      error
}

// Fail returns a Failure; cause may be nil.
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

// FailureOf returns the Failure that err wraps, or nil.
func FailureOf(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	return nil
}

// CodecLost reports whether a codec process was lost: it died, reported that it has no memory left or an unknown error, or
// was killed at the deadline. It is false for a nil Failure.
func (f *Failure) CodecLost() bool {
	return f != nil && (f.Code == CodecCrashed || f.Code == CodecTimeout)
}

// Codes returns every code with its class.
func Codes() map[Code]Class { return maps.Clone(classes) }
