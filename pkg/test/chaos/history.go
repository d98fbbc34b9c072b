package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"vitrine.io/pkg/test/client"
)

// Expectation is what one client knows of one product, which is its own: nobody else writes to it.
type Expectation struct {
	Token    string // stands in the description, which never changes
	UserID   int64
	Key      string // Idempotency-Key of its POST, or ""
	ID       int64  // 0: none was told
	Accepted bool   // answered with 201
	IDs      []int64

	Name, Price string // of the last write that was acknowledged
	Images      []string
	MaybeNames  []string // of writes of which nobody knows whether and when they happened
	MaybePrices []string
	MaybeImages [][]string

	Deleted      bool // acknowledged
	MaybeDeleted bool
	Version      int64 // the highest that was acknowledged or read

	body   map[string]any // of its POST
	etag   string
	images []int64 // ids
}

// created takes note of a 201.
func (s *Expectation) created(p client.Product, etag string) {
	s.Accepted, s.ID = true, p.ID
	s.IDs = append(s.IDs, p.ID)
	s.observe(p, etag)
}

// observe takes note of what was read or answered.
func (s *Expectation) observe(p client.Product, etag string) {
	s.Version = max(s.Version, p.Version)
	s.etag = etag
	s.images = s.images[:0]
	for _, img := range p.Images {
		s.images = append(s.images, img.ID)
	}
}

// History is what the clients of a run did and saw. It may be used concurrently.
type History struct {
	mu       sync.Mutex
	log      io.Writer
	expectations  []*Expectation
	findings []Finding
	counts   map[string]int
}

// NewHistory returns an empty history. Each step is written to log as a line of JSON, too.
func NewHistory(log io.Writer) *History { return &History{log: log, counts: map[string]int{}} }

// add begins a story.
func (h *History) add(s *Expectation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expectations = append(h.expectations, s)
}

// record writes one step down and counts it.
func (h *History) record(client int, what, token string, a client.Response, err error) {
	line := map[string]any{
		"at": time.Now().UTC().Format("15:04:05.000"), "client": client, "did": what, "product": token, "status": a.Status,
		"code": a.Code(), "etag": a.ETag(),
	}
	outcome := fmt.Sprint(a.Status)
	if err != nil {
		line["error"] = err.Error()
		outcome = "no answer"
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[what+": "+outcome]++
	if a.Status == 500 {
		h.findings = append(h.findings, Finding{"no request is answered with 500", fmt.Sprintf("%s %s: %s", what, token, a.Body)})
	}
	_ = json.NewEncoder(h.log).Encode(line) // a full disk shows elsewhere
}

// addFinding takes note of something that a client saw and that must not be.
func (h *History) addFinding(rule, detail string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.findings = append(h.findings, Finding{rule, detail})
}
