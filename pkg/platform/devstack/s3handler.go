package devstack

import (
	"encoding/xml"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/johannesboyne/gofakes3"
)

// keptCacheControl is the header under which gofakes3 stores Cache-Control. Of the headers that it does not know, it
// stores only X-Amz-Meta ones.
const keptCacheControl = "X-Amz-Meta-Kept-Cache-Control"

// s3Handler adds rules to gofakes3: it limits unsigned requests to reading objects of public buckets, rejects keys that are
// not valid file paths, accepts a bucket's policy, and stores Cache-Control.
type s3Handler struct {
	store  gofakes3.Backend
	next   http.Handler
	public publicBuckets
}

// publicBuckets is a directory with an empty file for each bucket that has a policy.
type publicBuckets string

func (p publicBuckets) add(bucket string) error {
	if err := os.MkdirAll(string(p), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(string(p), bucket), nil, 0o600) //nolint:gosec // the bucket exists, so it is a valid name
}

func (p publicBuckets) has(bucket string) bool {
	_, err := os.Stat(filepath.Join(string(p), bucket)) //nolint:gosec // no part of the path of an object is . or ..
	return err == nil
}

func (h s3Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if key != "" && !storable(bucket+"/"+key) {
		refuse(w, http.StatusBadRequest, "InvalidArgument", "the key has an empty part, or one that is . or ..")
		return
	}
	if !signed(r) {
		read := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
		if !read || key == "" || !h.public.has(bucket) {
			refuse(w, http.StatusForbidden, "AccessDenied", "without a signature, only an object of a public bucket can be read")
			return
		}
		r.URL.RawQuery = "" // its parameters could change the response
	}
	if key == "" && r.URL.Query().Has("policy") {
		h.policy(w, r, bucket)
		return
	}
	if r.Method == http.MethodPut && r.Header.Get("Cache-Control") != "" {
		r.Header.Set(keptCacheControl, r.Header.Get("Cache-Control"))
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	h.next.ServeHTTP(w, r)
}

// policy accepts any policy, and makes the bucket public: everyone may then read its objects.
func (h s3Handler) policy(w http.ResponseWriter, r *http.Request, bucket string) {
	exists, err := h.store.BucketExists(bucket)
	switch {
	case err != nil:
		refuse(w, http.StatusInternalServerError, "InternalError", err.Error())
	case !exists:
		refuse(w, http.StatusNotFound, "NoSuchBucket", "there is no such bucket")
	case r.Method != http.MethodPut:
		refuse(w, http.StatusNotImplemented, "NotImplemented", "a policy can only be set")
	default:
		if err := h.public.add(bucket); err != nil {
			refuse(w, http.StatusInternalServerError, "InternalError", err.Error())
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// storable reports whether the path of an object is a valid path of a file.
func storable(path string) bool {
	parts := strings.Split(path, "/")
	return !slices.ContainsFunc(parts, func(part string) bool { return part == "" || part == "." || part == ".." }) &&
		!strings.ContainsAny(path, "\\\x00")
}

// signed reports whether the request has a signature. The signature is not checked.
func signed(r *http.Request) bool {
	return r.Header.Get("Authorization") != "" || r.URL.Query().Has("X-Amz-Signature")
}

// refuse sends an error document in S3's format.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_ = xml.NewEncoder(w).Encode(gofakes3.ErrorResponse{Code: gofakes3.ErrorCode(code), Message: message})
}
