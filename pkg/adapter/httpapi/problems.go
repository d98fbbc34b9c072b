package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"

	"vitrine.io/pkg/foundation/fault"
)

// The codes of problems about HTTP itself, and the generic codes of the error kinds.
const (
	codeBadRequest    = "bad_request"
	codeBadJSON       = "bad_json"
	codeNoRoute       = "no_such_route"
	codeMethod        = "method_not_allowed"
	codeSlowRequest   = "request_timeout"
	codeBodyTooLarge  = "body_too_large"
	codeMediaType     = "unsupported_media_type"
	codeInvalidFields = "invalid_fields"
	codeHeadTooLarge  = "head_too_large"
	codeInternal      = "internal_error"
	codeUnknownMethod = "unknown_method"
	codeUnavailable   = "unavailable"
	codeTimeout       = "timeout"
	codeShuttingDown  = "shutting_down"
	codeNotReady      = "not_ready"
	codeOverloaded    = "overloaded"
	codeListsBusy     = "lists_busy"
	codeListTimeout   = "list_timeout"

	// codeOutcomeUnknown is the code of catalog.ErrOutcomeUnknown.
	codeOutcomeUnknown = "outcome_unknown"
	// codeInProgress is the code of catalog.ErrInProgress.
	codeInProgress = "idempotency_in_progress"
)

// errOverloaded is the response to a request beyond MaxInFlight.
var errOverloaded = &httpError{codeOverloaded, "this server is handling as many requests as it may; try again later"}

// Problem is one row of the table of problems.
type Problem struct {
	Code   string // stable, and the end of the problem's type URI
	Status int
	Title  string // the same for every occurrence
}

// Problems returns the whole table. docs/api.md has a line for each.
func Problems() []Problem {
	return []Problem{
		{codeBadRequest, http.StatusBadRequest, "The request is not HTTP that can be understood"},
		{codeBadJSON, http.StatusBadRequest, "The body is not JSON"},
		{"unauthorized", http.StatusUnauthorized, "Authentication is required"},
		{"forbidden", http.StatusForbidden, "The client may not do this"},
		{codeNoRoute, http.StatusNotFound, "There is no resource at this path"},
		{"not_found", http.StatusNotFound, "There is no such resource"},
		{"user_not_found", http.StatusNotFound, "There is no such user"},
		{"product_not_found", http.StatusNotFound, "There is no such product"},
		{"image_not_found", http.StatusNotFound, "The product has no such image"},
		{codeMethod, http.StatusMethodNotAllowed, "The method does not apply to this path"},
		{codeSlowRequest, http.StatusRequestTimeout, "The request did not arrive in time"},
		{"conflict", http.StatusConflict, "The request conflicts with the current state"},
		{"email_taken", http.StatusConflict, "The e-mail address is taken"},
		{codeInProgress, http.StatusConflict, "The same request is in progress"},
		{"revision_mismatch", http.StatusPreconditionFailed, "The product has been changed since"},
		{codeBodyTooLarge, http.StatusRequestEntityTooLarge, "The body is too large"},
		{codeMediaType, http.StatusUnsupportedMediaType, "The body's media type is not supported"},
		{codeInvalidFields, http.StatusUnprocessableEntity, "One or more fields are not valid"},
		{"too_many_requests", http.StatusTooManyRequests, "Too many requests"},
		{codeHeadTooLarge, http.StatusRequestHeaderFieldsTooLarge, "The request's head is too large"},
		{codeInternal, http.StatusInternalServerError, "The server has failed"},
		{codeUnknownMethod, http.StatusNotImplemented, "The method is not known"},
		{codeUnavailable, http.StatusServiceUnavailable, "A service that the API needs is not available"},
		{"database_unavailable", http.StatusServiceUnavailable, "The database is not available"},
		{"product_busy", http.StatusServiceUnavailable, "Too many changes of this product are in progress"},
		{codeOutcomeUnknown, http.StatusServiceUnavailable, "It is not known whether the change was made"},
		{codeTimeout, http.StatusServiceUnavailable, "The request was not answered in time"},
		{codeOverloaded, http.StatusServiceUnavailable, "The server is handling as many requests as it may"},
		{codeListsBusy, http.StatusServiceUnavailable, "The server is handling as many lists as it may"},
		{codeListTimeout, http.StatusServiceUnavailable, "The list took too long"},
		{codeShuttingDown, http.StatusServiceUnavailable, "This server is shutting down"},
		{codeNotReady, http.StatusServiceUnavailable, "This server is not ready"},
	}
}

// kindCodes has the generic problem code of each error kind. It is used for an error whose own code is not in the table
// with the status of that kind.
var kindCodes = map[fault.Kind]string{
	fault.Internal:     codeInternal,
	fault.Invalid:      codeInvalidFields,
	fault.NotFound:     "not_found",
	fault.Conflict:     "conflict",
	fault.Unauthorized: "unauthorized",
	fault.Forbidden:    "forbidden",
	fault.TooMany:      "too_many_requests",
	fault.Unavailable:  codeUnavailable,
}

const (
	problemType = "https://vitrine.io/problems/"
	problemMIME = "application/problem+json"

	// retryAfter is the Retry-After header, in seconds, of a response to a request that may succeed later. A dependency
	// that restarts is usually available again within that time. retryInProgress is the header for a request whose
	// idempotency key is in use, which only waits for the other request.
	retryAfter, retryInProgress = "2", "1"

	// maxFields is the maximum of wrong fields in a response. A body of a megabyte can contain a hundred thousand.
	maxFields = 100
)

// httpError is an error about HTTP itself. The table of problems contains the status for its code.
type httpError struct {
	code   string
	detail string
}

func (e *httpError) Error() string { return e.code + ": " + e.detail }

// problemTable is the table of problems by code.
type problemTable map[string]Problem

func newProblemTable() problemTable {
	t := problemTable{}
	for _, p := range Problems() {
		t[p.Code] = p
	}
	return t
}

// problemResponse is the part of an error that a client receives.
type problemResponse struct {
	Problem
	Detail string
	Fields fieldErrors
}

// problemOf returns the problem that a client receives for err.
func (t problemTable) problemOf(err error) problemResponse {
	var refused *httpError
	var wrong fieldErrors
	var routed *fiber.Error
	switch {
	case errors.As(err, &wrong):
		return problemResponse{Problem: t[codeInvalidFields], Detail: "one or more fields are not valid", Fields: wrong}
	case errors.As(err, &refused):
		return problemResponse{Problem: t[refused.code], Detail: refused.detail}
	case fault.From(err) != nil:
		return t.ofFault(fault.From(err))
	case errors.Is(err, context.DeadlineExceeded):
		return problemResponse{Problem: t[codeTimeout], Detail: "the request was not answered in time; try again later"}
	case errors.As(err, &routed) && routed.Code == http.StatusNotFound:
		return problemResponse{Problem: t[codeNoRoute], Detail: "there is no resource at this path"}
	case errors.As(err, &routed) && routed.Code == http.StatusMethodNotAllowed:
		return problemResponse{Problem: t[codeMethod], Detail: "the Allow header lists the methods of this path"}
	default:
		return problemResponse{Problem: t[codeInternal], Detail: "the server's log has the cause under the request id"}
	}
}

func (t problemTable) ofFault(f *fault.Error) problemResponse {
	generic := t[kindCodes[f.Kind]]
	p, known := t[f.Code]
	failedIfMatch := f.Kind == fault.Conflict && p.Status == http.StatusPreconditionFailed
	if !known || p.Status != generic.Status && !failedIfMatch {
		p = generic
	}
	return problemResponse{Problem: p, Detail: f.Detail, Fields: bodyFields(f.Fields)}
}

// problemDTO is an RFC 9457 problem as it is sent.
type problemDTO struct {
	Type      string      `json:"type"`
	Title     string      `json:"title"`
	Status    int         `json:"status"`
	Detail    string      `json:"detail"`
	Instance  string      `json:"instance"`
	Code      string      `json:"code"`
	RequestID string      `json:"request_id"`
	Errors    fieldErrors `json:"errors,omitempty"`
}

// The parts of a request. The path is one, too: an id in it that is not valid is a 404.
const (
	inBody   = "body"
	inQuery  = "query"
	inHeader = "header"
)

// fieldError is one wrong field of a request.
type fieldError struct {
	In      string `json:"in"`      // the part of the request
	Pointer string `json:"pointer"` // an RFC 6901 JSON pointer into the body, or the name of a parameter or a header
	Code    string `json:"code"`
	Detail  string `json:"detail"`
}

// fieldErrors is the error of a request that has wrong fields: it lists all of them.
type fieldErrors []fieldError

func (f fieldErrors) Error() string {
	text := codeInvalidFields
	for _, wrong := range f {
		text += "; " + wrong.Pointer + ": " + wrong.Detail
	}
	return text
}

// orNil returns f as an error, or nil if no field is wrong.
func (f fieldErrors) orNil() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

func (f *fieldErrors) add(in, pointer, code, detail string) {
	*f = append(*f, fieldError{In: in, Pointer: pointer, Code: code, Detail: detail})
}

// has reports whether the field that pointer names in that part of the request is wrong.
func (f fieldErrors) has(in, pointer string) bool {
	return slices.ContainsFunc(f, func(wrong fieldError) bool { return wrong.In == in && wrong.Pointer == pointer })
}

// merge returns f, followed by the elements of more whose field is not in f.
func (f fieldErrors) merge(more fieldErrors) fieldErrors {
	all := f
	for _, wrong := range more {
		if !f.has(wrong.In, wrong.Pointer) {
			all = append(all, wrong)
		}
	}
	return all
}

// bodyFields converts the catalogue's field paths to JSON pointers: "product_images[0]" becomes "/product_images/0".
func bodyFields(fields []fault.Field) fieldErrors {
	wrong := make(fieldErrors, len(fields))
	for i, f := range fields {
		wrong[i] = fieldError{inBody, "/" + strings.NewReplacer("[", "/", "]", "").Replace(f.Path), f.Code, f.Detail}
	}
	return wrong
}

// queryFields keeps the catalogue's field paths, because filters and query parameters have the same names.
func queryFields(fields []fault.Field) fieldErrors {
	wrong := make(fieldErrors, len(fields))
	for i, f := range fields {
		wrong[i] = fieldError{inQuery, f.Path, f.Code, f.Detail}
	}
	return wrong
}

// response returns the complete response to the request with the given path and id.
func (p problemResponse) response(path, requestID string, repeatable bool) response {
	body, err := json.Marshal(problemDTO{
		Type: problemType + p.Code, Title: p.Title, Status: p.Status, Detail: p.Detail,
		Instance: path, Code: p.Code, RequestID: requestID, Errors: p.Fields[:min(len(p.Fields), maxFields)],
	})
	if err != nil {
		panic(fmt.Sprintf("httpapi: a problem cannot be encoded: %v", err)) // it holds only strings and numbers
	}
	headers := map[string]string{fiber.HeaderContentType: problemMIME, fiber.HeaderCacheControl: "no-store"}
	if wait := p.retryAfter(repeatable); wait != "" {
		headers[fiber.HeaderRetryAfter] = wait
	}
	return response{Status: p.Status, Headers: headers, Body: body}
}

// retryAfter returns the seconds to wait before the same request may succeed, or "" if waiting does not help. If the
// outcome of a change is unknown and the request is not repeatable, there is no Retry-After, because a repetition could
// apply the change twice.
func (p problemResponse) retryAfter(repeatable bool) string {
	switch {
	case p.Code == codeInProgress:
		return retryInProgress
	case p.Code == codeOutcomeUnknown && !repeatable:
		return ""
	case p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests:
		return retryAfter
	default:
		return ""
	}
}
