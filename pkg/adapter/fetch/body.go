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

// The memory for a body before any of it has come, in bytes: what an announced length is believed for at most, and what is
// taken when none is announced.
const (
	mostAhead  = 1 << 20
	leastAhead = 64 << 10
)

// body reads the body of a 200 answer, and keeps as much of the reservation as it takes. abort ends the request with a
// cause.
func (f *Fetcher) body(resp *http.Response, most limit, abort func(error)) (worker.Download, error) {
	if resp.ContentLength > most.bytes {
		return worker.Download{}, tooLarge(most.bytes)
	}
	longest := most.bytes
	if resp.ContentLength >= 0 && isIdentity(resp.Header.Get("Content-Encoding")) {
		longest = resp.ContentLength // net/http reads no more, whatever else comes
	}
	most.room.shrink(longest + 1)
	wire := &countingReader{from: &capped{from: resp.Body, left: most.bytes, limit: most.bytes}}
	stop := f.watch(&wire.arrived, abort)
	defer stop()
	decoded, err := decoder(resp.Header.Get("Content-Encoding"), wire, most.bytes)
	if err != nil {
		return worker.Download{}, wire.failure(err)
	}
	data, digest, err := readAll(decoded, resp.ContentLength, longest)
	if err != nil {
		return worker.Download{}, wire.failure(err)
	}
	most.room.shrink(int64(cap(data)))
	return worker.Download{Body: data, SHA256: digest}, nil
}

func isIdentity(encoding string) bool {
	encoding = strings.TrimSpace(encoding)
	return encoding == "" || strings.EqualFold(encoding, "identity")
}

// decoder undoes a content encoding. None was asked for, but some servers gzip all the same.
func decoder(encoding string, from io.Reader, limit int64) (io.Reader, error) {
	switch name := strings.ToLower(strings.TrimSpace(encoding)); {
	case isIdentity(name):
		return from, nil
	case name == "gzip", name == "x-gzip":
		unzipped, err := gzip.NewReader(from)
		return &capped{from: unzipped, left: limit, limit: limit}, err
	default:
		return nil, media.Fail(media.UnsupportedFormat, "the source is in a content encoding that was not asked for", nil)
	}
}

// countingReader is a body as it comes: it counts, and remembers its error, to tell a broken connection from broken data.
type countingReader struct {
	from    io.Reader
	arrived atomic.Int64 // bytes
	err     error
}

func (w *countingReader) Read(p []byte) (int, error) {
	n, err := w.from.Read(p)
	w.arrived.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err //nolint:wrapcheck // a Reader returns io.EOF as it is
}

// failure returns what err, of reading the decoded body, means. A broken connection is left for classify.
func (w *countingReader) failure(err error) error {
	switch {
	case media.FailureOf(err) != nil:
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return media.Fail(media.Incomplete, "the source ended too early", err)
	case w.err != nil:
		return err
	default:
		return media.Fail(media.Corrupt, "the source's gzip encoding is damaged", err)
	}
}

// capped is a Reader that fails when there is more than limit.
type capped struct {
	from  io.Reader
	left  int64
	limit int64
}

func (c *capped) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, tooLarge(c.limit)
	}
	return n, err //nolint:wrapcheck // a Reader returns io.EOF as it is
}

// readAll returns all of from, which has longest bytes at most and fails where there are more, and its SHA-256. announced is
// its length, or -1: believed for a first buffer, and for no more. The buffer doubles, but never beyond longest.
func readAll(from io.Reader, announced, longest int64) (data []byte, digest string, err error) {
	ahead := int64(leastAhead)
	if announced >= 0 {
		ahead = min(announced, mostAhead)
	}
	data = make([]byte, 0, min(ahead, longest)+1) // room for one more, in which Read says that it is all
	sum := sha256.New()
	for {
		if len(data) == cap(data) {
			data = append(make([]byte, 0, min(2*int64(cap(data)), longest+1)), data...)
		}
		n, err := from.Read(data[len(data):cap(data)])
		sum.Write(data[len(data) : len(data)+n])
		data = data[:len(data)+n]
		switch {
		case errors.Is(err, io.EOF):
			return data, hex.EncodeToString(sum.Sum(nil)), nil
		case err != nil:
			return nil, "", err //nolint:wrapcheck // classified by the caller
		}
	}
}

// watch aborts the request when a whole window brought less than the least rate. stop ends the watch and waits for it.
func (f *Fetcher) watch(arrived *atomic.Int64, abort func(error)) (stop func()) {
	least := int64(float64(f.config.MinRate) * f.config.RateWindow.Seconds())
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
			now := arrived.Load()
			if now-before < least {
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
