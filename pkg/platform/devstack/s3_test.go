package devstack_test

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/platform/devstack"
)

// The tests of package blob run test/blobtest, the suite for every store, on this stand-in. These tests are for its own
// features.

func startS3(t *testing.T, cfg devstack.S3Config) *devstack.S3 {
	t.Helper()
	s, err := devstack.StartS3(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// bucket creates the public bucket "images" of s.
func bucket(t *testing.T, s *devstack.S3) *blob.Bucket {
	t.Helper()
	b, err := blob.New(blob.Config{
		Endpoint: s.Endpoint(), Region: "us-east-1", Bucket: "images", AccessKey: "any", SecretKey: "key",
		PathStyle: true, CreateBucket: true, PublicRead: true, AttemptTimeout: 10 * time.Second, MaxAttempts: 1,
	}, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.EnsureBucket(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, b *blob.Bucket, key, body string) {
	t.Helper()
	if err := b.Put(t.Context(), key, "image/webp", strings.NewReader(body), int64(len(body))); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, b *blob.Bucket) []string {
	t.Helper()
	objects, more, err := b.Page(t.Context(), "", "", 10_000)
	if err != nil || more {
		t.Fatalf("list: %v, more: %t", err, more)
	}
	var keys []string
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	return keys
}

// send sends a request on a connection of its own and returns the status, the headers and the body.
func send(t *testing.T, req *http.Request) (*http.Response, string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func request(t *testing.T, method, url string, headers ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

// upload sends a Content-Length of size bytes and only the body sent, and returns the response.
func upload(t *testing.T, s *devstack.S3, path string, size int64, sent string) (status int, body string) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.Endpoint(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nAuthorization: x\r\nContent-Length: %d\r\n\r\n%s", path, size, sent)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestS3(t *testing.T) {
	t.Parallel()
	t.Run("restart_keeps_objects", testS3RestartKeepsObjects)
	t.Run("list_in_pages", testS3ListInPages)
	t.Run("too_large_upload", testS3TooLargeUpload)
	t.Run("incomplete_upload_leaves_nothing", testS3IncompleteUploadLeavesNothing)
	t.Run("start_removes_incomplete_object", testS3StartRemovesIncompleteObject)
	t.Run("key_that_is_no_file_path", testS3KeyThatIsNoFilePath)
	t.Run("bucket_policy", testS3BucketPolicy)
	t.Run("unsigned_request_cannot_change_headers", testS3UnsignedRequestCannotChangeHeaders)
	t.Run("start_errors_name_cause", testS3StartErrorsNameCause)
	t.Run("second_close_and_wildcard_address", testS3SecondCloseAndWildcardAddress)
	t.Run("close_is_bounded", testS3CloseIsBounded)
}

func testS3RestartKeepsObjects(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "inside")
	first := startS3(t, devstack.S3Config{Dir: dir})
	put(t, bucket(t, first), "products/1/2/3-abc/card.webp", "an image")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := startS3(t, devstack.S3Config{Dir: dir})
	resp, body := send(t, request(t, http.MethodGet, second.Endpoint()+"/images/products/1/2/3-abc/card.webp"))
	if body != "an image" || resp.Header.Get("Content-Type") != "image/webp" ||
		resp.Header.Get("Cache-Control") != blob.CacheControl {
		t.Errorf("got %q with %v", body, resp.Header)
	}
	for name := range resp.Header {
		if strings.HasPrefix(name, "X-Amz-Content") || strings.HasPrefix(name, "X-Amz-Meta") || name == "X-Amz-Date" {
			t.Errorf("the response has a header of the upload: %s", name)
		}
	}
}

func testS3ListInPages(t *testing.T) {
	t.Parallel()
	s := startS3(t, devstack.S3Config{Dir: t.TempDir()})
	b := bucket(t, s)
	for _, key := range []string{"a/x", "a-b", "c", "a/y", "b"} { // in a directory tree, a/x is before a-b
		put(t, b, key, "x")
	}
	var got []string
	for url, pages := s.Endpoint()+"/images?list-type=2&max-keys=2", 0; url != ""; pages++ {
		_, body := send(t, request(t, http.MethodGet, url, "Authorization", "x"))
		var page struct {
			Contents              []struct{ Key string }
			IsTruncated           bool
			NextContinuationToken string
		}
		if err := xml.Unmarshal([]byte(body), &page); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		for _, object := range page.Contents {
			got = append(got, object.Key)
		}
		if len(page.Contents) > 2 || pages > 3 {
			t.Fatalf("got a page of %d, after %d others", len(page.Contents), pages)
		}
		url = ""
		if page.IsTruncated {
			url = s.Endpoint() + "/images?list-type=2&max-keys=2&continuation-token=" + page.NextContinuationToken
		}
	}
	if want := []string{"a-b", "a/x", "a/y", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func testS3TooLargeUpload(t *testing.T) {
	t.Parallel()
	s := startS3(t, devstack.S3Config{Dir: t.TempDir()})
	b := bucket(t, s)
	status, body := upload(t, s, "/images/huge", 1<<40, "")
	if status < 400 || !strings.Contains(body, "EntityTooLarge") {
		t.Errorf("got %d %s, want EntityTooLarge", status, body)
	}
	if got := list(t, b); len(got) != 0 {
		t.Errorf("got %v, want nothing", got)
	}
}

// Half an object would be listed, or make every listing fail.
func testS3IncompleteUploadLeavesNothing(t *testing.T) {
	t.Parallel()
	s := startS3(t, devstack.S3Config{Dir: t.TempDir()})
	b := bucket(t, s)
	put(t, b, "a/whole", "x")
	for _, sent := range []string{"", "half"} {
		if status, _ := upload(t, s, "/images/a/broken", 100, sent); status < 400 {
			t.Errorf("%d of 100 bytes: got %d", len(sent), status)
		}
	}
	if got, want := list(t, b), []string{"a/whole"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A process that is killed between the writes of an object's file and its metadata must not make every listing fail.
func testS3StartRemovesIncompleteObject(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := startS3(t, devstack.S3Config{Dir: dir})
	put(t, bucket(t, first), "a/whole", "x")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "buckets", "images", "a", "half"), []byte("ha"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := list(t, bucket(t, startS3(t, devstack.S3Config{Dir: dir}))), []string{"a/whole"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func testS3KeyThatIsNoFilePath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startS3(t, devstack.S3Config{Dir: dir})
	b := bucket(t, s)
	put(t, b, "a/b", "x")
	for _, path := range []string{"/images/../metadata/x", "/images/a/../b", "/images/./b", "/../x/y", "/images/a//b",
		"/images/a/b/", `/images/a\b`} {
		for _, method := range []string{http.MethodGet, http.MethodPut} {
			req := request(t, method, s.Endpoint(), "Authorization", "x")
			req.URL.Path = path
			if resp, body := send(t, req); resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "InvalidArgument") {
				t.Errorf("%s %s: got %s %s", method, path, resp.Status, body)
			}
		}
	}
	if err := b.Put(t.Context(), "a/b/c", "image/webp", strings.NewReader("x"), 1); err == nil {
		t.Error("an object below an object: got no error")
	}
	if got, want := list(t, b), []string{"a/b"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func testS3BucketPolicy(t *testing.T) {
	t.Parallel()
	s := startS3(t, devstack.S3Config{Dir: t.TempDir()})
	bucket(t, s)
	for _, test := range []struct {
		method, path string
		want         int
	}{
		{http.MethodPut, "/private", http.StatusOK},
		{http.MethodPut, "/private/a", http.StatusOK},
		{http.MethodPut, "/images?policy", http.StatusNoContent}, {http.MethodPut, "/others?policy", http.StatusNotFound},
		{http.MethodGet, "/images?policy", http.StatusNotImplemented},
	} {
		resp, _ := send(t, request(t, test.method, s.Endpoint()+test.path, "Authorization", "x"))
		if resp.StatusCode != test.want {
			t.Errorf("%s %s: got %s, want %d", test.method, test.path, resp.Status, test.want)
		}
	}
	if resp, _ := send(t, request(t, http.MethodGet, s.Endpoint()+"/private/a")); resp.StatusCode != http.StatusForbidden {
		t.Errorf("unsigned, of a bucket without a policy: got %s", resp.Status)
	}
}

func testS3UnsignedRequestCannotChangeHeaders(t *testing.T) {
	t.Parallel()
	s := startS3(t, devstack.S3Config{Dir: t.TempDir()})
	put(t, bucket(t, s), "a/b", "<script>")
	resp, _ := send(t, request(t, http.MethodGet, s.Endpoint()+"/images/a/b?response-content-type=text/html"))
	if got := resp.Header.Get("Content-Type"); got != "image/webp" {
		t.Errorf("got Content-Type %s, want the object's own", got)
	}
	if got := resp.Header.Get("X-Content-Type-Options"); got != "nosniff" {
		t.Errorf("got X-Content-Type-Options %q, want nosniff", got)
	}
	// Pages of other origins may draw images on a canvas.
	if got := resp.Header.Get("Access-Control-Allow-Origin"); got != "*" {
		t.Errorf("got Access-Control-Allow-Origin %q, want *", got)
	}
}

func testS3StartErrorsNameCause(t *testing.T) {
	t.Parallel()
	s := startS3(t, devstack.S3Config{Dir: t.TempDir()})
	addr := strings.TrimPrefix(s.Endpoint(), "http://")
	if _, err := devstack.StartS3(devstack.S3Config{Dir: t.TempDir(), Addr: addr}); err == nil ||
		!strings.Contains(err.Error(), addr) {
		t.Errorf("port in use: got %v, want an error that names %s", err, addr)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := devstack.StartS3(devstack.S3Config{Dir: filepath.Join(file, "x")}); err == nil ||
		!strings.Contains(err.Error(), file) {
		t.Errorf("a file at the path of the directory: got %v, want an error that names it", err)
	}
}

func testS3SecondCloseAndWildcardAddress(t *testing.T) {
	t.Parallel()
	s := startS3(t, devstack.S3Config{Dir: t.TempDir(), Addr: "0.0.0.0:0"})
	if !strings.HasPrefix(s.Endpoint(), "http://127.0.0.1:") {
		t.Errorf("got %s, want the loopback address", s.Endpoint())
	}
	bucket(t, s)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A client that does not complete its request must not block Close.
func testS3CloseIsBounded(t *testing.T) {
	t.Parallel()
	s := startS3(t, devstack.S3Config{Dir: t.TempDir()})
	bucket(t, s)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.Endpoint(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	fmt.Fprint(conn, "PUT /images/slow HTTP/1.1\r\nHost: x\r\nAuthorization: x\r\nExpect: 100-continue\r\n"+
		"Content-Length: 100\r\n\r\n")
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil { // 100 Continue: the server waits for the body
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Close has not returned within 30 s")
	}
}
