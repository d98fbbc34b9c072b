package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind is the class of an error: it says what the caller can do.
type Kind int

// The kinds. The zero value is Internal, so an unclassified error is a defect.
const (
	Internal     Kind = iota // a defect of the program: report it, do not retry
	Invalid                  // the request is wrong: change it
	NotFound                 // the object does not exist
	Conflict                 // the object is in another state than the request assumes
	Unauthorized             // the caller has not identified itself
	Forbidden                // the caller may not do this
	TooMany                  // too many requests: slow down, then retry
	Unavailable              // a dependency is down or slow: retry later
)

// Kinds lists every kind, for tables that must cover them all.
func Kinds() []Kind {
	return []Kind{Internal, Invalid, NotFound, Conflict, Unauthorized, Forbidden, TooMany, Unavailable}
}

// String returns the kind's name in lower case, as logs show it.
func (k Kind) String() string {
	switch k {
	case Internal:
		return "internal"
	case Invalid:
		return "invalid"
	case NotFound:
		return "not_found"
	case Conflict:
		return "conflict"
	case Unauthorized:
		return "unauthorized"
	case Forbidden:
		return "forbidden"
	case TooMany:
		return "too_many"
	case Unavailable:
		return "unavailable"
	default:
		return fmt.Sprintf("kind(%d)", int(k))
	}
}

// Field is one wrong value in a request, a document or a configuration.
type Field struct {
	Path   string // a setting or parameter ("MAX_CONNS"), or a part of a document ("product_images[0]")
	Code   string // stable and machine-readable ("too_long")
	Detail string // one sentence for people
}

// Error is a classified error. Code and Detail are public; the cause is not.
type Error struct {
	Kind   Kind
	Code   string  // stable and machine-readable ("email_taken")
	Detail string  // one sentence for people
	Fields []Field // for Invalid: every wrong field
	cause  error
}

// New returns an error of a kind with a public code and detail.
func New(kind Kind, code, detail string) *Error {
	return &Error{Kind: kind, Code: code, Detail: detail}
}

// Wrap classifies cause, which is only logged.
func Wrap(cause error, kind Kind, code, detail string) *Error {
	return &Error{Kind: kind, Code: code, Detail: detail, cause: cause}
}

// InvalidFields returns an Invalid error that lists every wrong field, or nil when there is none.
func InvalidFields(fields []Field) error {
	if len(fields) == 0 {
		return nil
	}
	return &Error{Kind: Invalid, Code: "invalid_fields", Detail: "one or more fields are not valid", Fields: fields}
}

// Error returns the code, the detail, the fields and the cause, for logs.
func (e *Error) Error() string {
	text := e.Code + ": " + e.Detail
	for _, f := range e.Fields {
		text += "; " + f.Path + ": " + f.Detail
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// From returns the outermost classified error in the chain of err, or nil.
func From(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// KindOf returns the kind of the outermost classified error in the chain of err. An unclassified context.DeadlineExceeded is
// Unavailable, because a dependency was slow; any other unclassified error is Internal.
func KindOf(err error) Kind {
	if e := From(err); e != nil {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Unavailable
	}
	return Internal
}

// Is reports whether err is of kind k. A nil error has no kind.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }

// CodeOf returns the public code of the outermost classified error in the chain of err, or "".
func CodeOf(err error) string {
	if e := From(err); e != nil {
		return e.Code
	}
	return ""
}
