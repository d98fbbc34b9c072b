package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"vitrine.io/pkg/test/client"
)

// tally is what a client tells of the products it has posted. It is what burst and load print, as JSON.
type tally struct {
	Requests int      `json:"requests"`
	Refused  int      `json:"refused"` // requests without the answer they should have had
	Why      []string `json:"why"`     // the first refusals

	Accepted   int      `json:"accepted"` // products answered with 201
	Pictures   int      `json:"pictures"` // of the accepted products
	Ready      int      `json:"ready"`
	Unready    []string `json:"unready"`    // the first pictures that are not ready in the end
	Repeated   int      `json:"repeated"`   // outcomes beyond one for each attempt: pictures done twice
	Retried    int      `json:"retried"`    // attempts beyond the first of each picture
	TakenOver  int      `json:"taken_over"` // attempts that a later one took over, of pictures that are ready
	Fetched    int      `json:"fetched"`    // downloads that the source has served, where it was asked
	Renditions []string `json:"renditions"` // their names, each once
	Downloaded int      `json:"downloaded"` // URLs

	Began time.Time   `json:"began"` // when the first product was added
	Ends  []time.Time `json:"ends"`  // when each product has changed last
}

// most is how many examples a tally holds.
const most = 10

// refuse counts a request that had not the answer it should have had.
func (t *tally) refuse(err error) {
	t.Refused++
	if len(t.Why) < most {
		t.Why = append(t.Why, err.Error())
	}
}

// add counts an accepted product as it is now. Every ended attempt raises a product's version by one, and nothing else does.
func (t *tally) add(p client.Product) {
	attempts := 0
	for i, img := range p.Images {
		attempts += img.Attempts
		t.Retried += max(0, img.Attempts-1)
		if img.Status == "ready" {
			t.Ready++
		} else {
			why := img.Status
			if img.Error != nil {
				why += " " + img.Error.Code
			}
			t.unready(fmt.Sprintf("product %d picture %d: %s", p.ID, i, why))
		}
		for _, r := range img.Renditions {
			if !slices.Contains(t.Renditions, r.Name) {
				t.Renditions = append(t.Renditions, r.Name)
			}
		}
		if len(img.Renditions) > 0 {
			t.TakenOver += max(0, fence(img.Renditions[0].URL)-img.Attempts)
		}
	}
	t.Repeated += max(0, int(p.Version)-1-attempts)
	if t.Began.IsZero() || p.CreatedAt.Before(t.Began) {
		t.Began = p.CreatedAt
	}
	t.Ends = append(t.Ends, p.UpdatedAt)
}

// gone counts an accepted product that is not found, or is never settled.
func (t *tally) gone(id int64, err error) {
	t.unready(fmt.Sprintf("product %d: %v", id, err))
}

func (t *tally) unready(text string) {
	if len(t.Unready) < most {
		t.Unready = append(t.Unready, text)
	}
}

// fence reads the number of the attempt out of a rendition's URL: 2 of .../products/1/100/2-5f3a9c/thumb.jpg. 0: it is none.
func fence(url string) int {
	parts := strings.Split(url, "/")
	if len(parts) < 2 {
		return 0
	}
	number, _, _ := strings.Cut(parts[len(parts)-2], "-")
	n, err := strconv.Atoi(number)
	if err != nil {
		return 0
	}
	return n
}

// check is an error unless every accepted picture is ready, and was done once.
func (t tally) check() error {
	switch {
	case t.Accepted == 0:
		return fmt.Errorf("no product was accepted; %d of %d requests refused: %s",
			t.Refused, t.Requests, strings.Join(t.Why, "; "))
	case t.Ready != t.Pictures || len(t.Unready) > 0:
		return fmt.Errorf("%d of %d accepted pictures are ready: %s", t.Ready, t.Pictures, strings.Join(t.Unready, "; "))
	case t.Repeated > 0:
		return fmt.Errorf("%d of %d pictures were done twice", t.Repeated, t.Pictures)
	case t.Fetched > t.Pictures+t.Retried+t.TakenOver:
		return fmt.Errorf("%d downloads for %d pictures, %d retries and %d takeovers: some were done twice",
			t.Fetched, t.Pictures, t.Retried, t.TakenOver)
	}
	return nil
}

// checkAll is check, and an error if a request had not the answer it should have had.
func (t tally) checkAll() error {
	if t.Refused > 0 {
		return fmt.Errorf("%d of %d requests failed: %s", t.Refused, t.Requests, strings.Join(t.Why, "; "))
	}
	return t.check()
}

// rate returns how many of ends came in a second, between the quantiles from and to: where all workers were busy.
func rate(ends []time.Time, from, to float64) (float64, error) {
	sorted := slices.SortedFunc(slices.Values(ends), time.Time.Compare)
	first, last := int(from*float64(len(sorted))), int(to*float64(len(sorted)))
	if last <= first || last >= len(sorted) {
		return 0, fmt.Errorf("%d products are too few for a rate", len(sorted))
	}
	seconds := sorted[last].Sub(sorted[first]).Seconds()
	if seconds <= 0 {
		return 0, fmt.Errorf("%d products ended at the same time", last-first)
	}
	return float64(last-first) / seconds, nil
}
