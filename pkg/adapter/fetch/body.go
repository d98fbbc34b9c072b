package fetch

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/media"
)

// The size of the first buffer for a body, in bytes: its maximum if the length is announced, and its size if it is not.
const (
	maxFirstBuffer     = 1 << 20
	defaultFirstBuffer = 64 << 10
)

// body reads the body of a 200 answer, and shrinks the reservation to the size of its buffer. abort ends the request with
// a cause.
func (f *Fetcher) body(resp *http.Response, limit bodyLimit, abort func(error)) (worker.Download, error) {
	if resp.ContentLength > limit.bytes {
		return worker.Download{}, tooLarge(limit.bytes)
	}
	maxLen := limit.bytes
	if resp.ContentLength >= 0 && isIdentity(resp.Header.Get("Content-Encoding")) {
		maxLen = resp.ContentLength // net/http reads no more
	}
	limit.memory.shrink(maxLen + 1)
	received := &countingReader{from: &limitedReader{from: resp.Body, left: limit.bytes, limit: limit.bytes}}
	stop := f.watch(&received.bytes, abort)
	defer stop()
	decoded, err := decoder(resp.Header.Get("Content-Encoding"), received, limit.bytes)
	if err != nil {
		return worker.Download{}, received.failure(err)
	}
	data, digest, err := readAll(decoded, resp.ContentLength, maxLen)
	if err != nil {
		return worker.Download{}, received.failure(err)
	}
	limit.memory.shrink(int64(cap(data)))
	return worker.Download{Body: data, SHA256: digest}, nil
}

func isIdentity(encoding string) bool {
	encoding = strings.TrimSpace(encoding)
	return encoding == "" || strings.EqualFold(encoding, "identity")
}

// decoder decodes a content encoding. The request accepts no encoding, but some servers send gzip nevertheless.
func decoder(encoding string, from io.Reader, limit int64) (io.Reader, error) {
	switch name := strings.ToLower(strings.TrimSpace(encoding)); {
	case isIdentity(name):
		return from, nil
	case name == "gzip", name == "x-gzip":
		unzipped, err := gzip.NewReader(from)
		return &limitedReader{from: unzipped, left: limit, limit: limit}, err
	default:
		return nil, media.Fail(media.UnsupportedFormat, "the source has a content encoding that was not requested", nil)
	}
}

// countingReader counts the received bytes, and keeps its error to distinguish a broken connection from invalid data.
type countingReader struct {
	from  io.Reader
	bytes atomic.Int64
	err   error
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.bytes.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// failure returns the *media.Failure for an error of the decoded body. It returns the error of a broken connection
// unchanged, for classify.
func (r *countingReader) failure(err error) error {
	switch {
	case media.FailureOf(err) != nil:
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return media.Fail(media.Incomplete, "the source ended too early", err)
	case r.err != nil:
		return err
	default:
		return media.Fail(media.Corrupt, "the source's gzip encoding is damaged", err)
	}
}

// limitedReader is a Reader that fails after more than limit bytes.
type limitedReader struct {
	from  io.Reader
	left  int64
	limit int64
}

func (r *limitedReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return 0, tooLarge(r.limit)
	}
	return n, err
}

// readAll returns all bytes of from, at most maxLen, and their SHA-256. from returns an error if it has more. announced
// is the announced length, or -1; it determines only the size of the first buffer. The buffer doubles, up to maxLen and
// one byte.
func readAll(from io.Reader, announced, maxLen int64) (data []byte, digest string, err error) {
	first := int64(defaultFirstBuffer)
	if announced >= 0 {
		first = min(announced, maxFirstBuffer)
	}
	data = make([]byte, 0, min(first, maxLen)+1) // one more byte, so that the last Read can return io.EOF
	sum := sha256.New()
	for {
		if len(data) == cap(data) {
			data = append(make([]byte, 0, min(2*int64(cap(data)), maxLen+1)), data...)
		}
		n, err := from.Read(data[len(data):cap(data)])
		sum.Write(data[len(data) : len(data)+n])
		data = data[:len(data)+n]
		switch {
		case errors.Is(err, io.EOF):
			return data, hex.EncodeToString(sum.Sum(nil)), nil
		case err != nil:
			return nil, "", err
		}
	}
}

// watch aborts the request after a rate window with less than Config.MinRate. stop ends the watch and waits for it.
func (f *Fetcher) watch(received *atomic.Int64, abort func(error)) (stop func()) {
	minBytes := int64(float64(f.config.MinRate) * f.config.RateWindow.Seconds())
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		window := time.NewTicker(f.config.RateWindow)
		defer window.Stop()
		before := int64(0)
		for {
			select {
			case <-done:
				return
			case <-window.C:
			}
			now := received.Load()
			if now-before < minBytes {
				abort(tooSlow("the source sends too slowly"))
				return
			}
			before = now
		}
	})
	return func() {
		close(done)
		watching.Wait()
	}
}
