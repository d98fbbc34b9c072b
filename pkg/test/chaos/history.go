package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"vitrine.io/pkg/test/client"
)

// Expectation is what a client expects of one of its products. No other client writes to the product.
type Expectation struct {
	Token    string // the product's description, which is never changed
	UserID   int64
	Key      string  // Idempotency-Key of its POST, or ""
	ID       int64   // 0: unknown
	Accepted bool    // a POST returned 201
	IDs      []int64 // of all 201 responses

	Name, Price string // of the last acknowledged write
	Images      []string
	MaybeNames  []string // of writes whose outcome is unknown
	MaybePrices []string
	MaybeImages [][]string

	Flood bool // of the user that floods

	Deleted      bool // acknowledged
	MaybeDeleted bool
	Version      int64 // highest version in a response

	body   map[string]any // of the POST
	etag   string
	images []int64 // ids
}

// created records a 201 response.
func (s *Expectation) created(p client.Product, etag string) {
	s.Accepted, s.ID = true, p.ID
	s.IDs = append(s.IDs, p.ID)
	s.observe(p, etag)
}

// observe records a product that a response contained.
func (s *Expectation) observe(p client.Product, etag string) {
	s.Version = max(s.Version, p.Version)
	s.etag = etag
	s.images = s.images[:0]
	for _, img := range p.Images {
		s.images = append(s.images, img.ID)
	}
}

// History records the requests and responses of a run's clients. It is safe for concurrent use.
type History struct {
	mu           sync.Mutex
	log          io.Writer
	expectations []*Expectation
	findings     []Finding
	counts       map[string]int
}

// NewHistory returns an empty history. Each request is also written to log as a line of JSON.
func NewHistory(log io.Writer) *History { return &History{log: log, counts: map[string]int{}} }

// add adds a product to the history.
func (h *History) add(s *Expectation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expectations = append(h.expectations, s)
}

// record logs and counts one request.
func (h *History) record(client int, request, token string, a client.Response, err error) {
	line := map[string]any{
		"at": time.Now().UTC().Format("15:04:05.000"), "client": client, "request": request, "product": token, "status": a.Status,
		"code": a.Code(), "etag": a.ETag(),
	}
	outcome := fmt.Sprint(a.Status)
	if err != nil {
		line["error"] = err.Error()
		outcome = "no response"
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[request+": "+outcome]++
	refused := a.Status == http.StatusTooManyRequests || a.Status == http.StatusServiceUnavailable
	// A request without a key must not be repeated if its outcome is unknown.
	if refused && a.Header.Get("Retry-After") == "" && a.Code() != "outcome_unknown" {
		h.findings = append(h.findings, Finding{"a refusal has Retry-After", fmt.Sprintf("%s %s: %s", request, token, a.Body)})
	}
	if a.Status == 500 {
		h.findings = append(h.findings, Finding{"no response has status 500", fmt.Sprintf("%s %s: %s", request, token, a.Body)})
	}
	_ = json.NewEncoder(h.log).Encode(line) // the log is only for diagnosis
}

// addFinding adds a violation that a client has seen.
func (h *History) addFinding(rule, detail string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.findings = append(h.findings, Finding{rule, detail})
}
