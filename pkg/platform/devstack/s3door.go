package devstack

import (
	"encoding/xml"
	"net/http"
	"slices"
	"strings"

	"github.com/johannesboyne/gofakes3"
)

// keptCacheControl carries Cache-Control past gofakes3, which keeps no header it does not know but does keep these.
const keptCacheControl = "X-Amz-Meta-Kept-Cache-Control"

// door stands before gofakes3 and does what it does not: it tells strangers from callers with a signature, refuses keys that
// a directory tree cannot hold, takes a bucket's policy, and keeps Cache-Control.
type door struct {
	store gofakes3.Backend
	next  http.Handler
}

func (d door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if key != "" && !storable(bucket+"/"+key) {
		refuse(w, http.StatusBadRequest, "InvalidArgument", "the key has an empty part, or one that is . or ..")
		return
	}
	if !signed(r) {
		read := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
		if !read || key == "" {
			refuse(w, http.StatusForbidden, "AccessDenied", "without a signature, only an object can be read")
			return
		}
		r.URL.RawQuery = "" // which could ask for other things than the object
	}
	if key == "" && r.URL.Query().Has("policy") {
		d.policy(w, r, bucket)
		return
	}
	if r.Method == http.MethodPut && r.Header.Get("Cache-Control") != "" {
		r.Header.Set(keptCacheControl, r.Header.Get("Cache-Control"))
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	d.next.ServeHTTP(w, r)
}

// policy takes any policy: what everyone may do here is fixed.
func (d door) policy(w http.ResponseWriter, r *http.Request, bucket string) {
	there, err := d.store.BucketExists(bucket)
	switch {
	case err != nil:
		refuse(w, http.StatusInternalServerError, "InternalError", err.Error())
	case !there:
		refuse(w, http.StatusNotFound, "NoSuchBucket", "there is no such bucket")
	case r.Method != http.MethodPut:
		refuse(w, http.StatusNotImplemented, "NotImplemented", "a policy can only be set")
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// storable reports whether the path of an object can be a path of files.
func storable(path string) bool {
	parts := strings.Split(path, "/")
	return !slices.ContainsFunc(parts, func(part string) bool { return part == "" || part == "." || part == ".." }) &&
		!strings.ContainsAny(path, "\\\x00")
}

// signed reports whether the request claims to be from somebody. Nobody checks.
func signed(r *http.Request) bool {
	return r.Header.Get("Authorization") != "" || r.URL.Query().Has("X-Amz-Signature")
}

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_ = xml.NewEncoder(w).Encode(gofakes3.ErrorResponse{Code: gofakes3.ErrorCode(code), Message: message})
}
