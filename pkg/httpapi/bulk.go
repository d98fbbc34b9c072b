package httpapi

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/media"
)

// The bounds of a request for many pictures. Each picture is a transaction of some milliseconds, so that the most of them
// end well within the time that the admin server has for an answer, and bulkTimeout is below it.
const (
	defaultBulkLimit = 100
	maxBulkLimit     = 1000
	bulkTimeout      = 25 * time.Second
	maxBulkBody      = 4 << 10 // bytes
)

// Bulk asks for many pictures anew, behind live traffic.
type Bulk interface {
	// Reprocess looks at no more than limit of the pictures that are selected and whose id is above after, in the order of
	// their ids. Repeating it changes nothing: a picture that is in work is skipped.
	Reprocess(ctx context.Context, which catalog.Selection, after catalog.ImageID, limit int) (catalog.Bulk, error)
}

// bulkHandler is the handler of POST /images/reprocess.
type bulkHandler struct {
	bulk     Bulk
	problems problemTable
	log      *zap.Logger
	requests atomic.Int64
}

// NewReprocessHandler returns what answers POST /images/reprocess, and problems to other methods. It is for the admin port:
// it asks nobody who they are.
func NewReprocessHandler(bulk Bulk, log *zap.Logger) http.Handler {
	return &bulkHandler{bulk: bulk, problems: newProblemTable(), log: log}
}

// bulkDTO is the answer.
type bulkDTO struct {
	Requested int    `json:"requested"`
	Skipped   int    `json:"skipped"`
	Next      *int64 `json:"next"` // what after has to be to go on; null at the end
	Spread    int64  `json:"spread_seconds"`
}

// ServeHTTP implements http.Handler.
func (h *bulkHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get(headerRequestID)
	if !fitForLog(id) {
		id = "reprocess-" + strconv.FormatInt(h.requests.Add(1), 10)
	}
	log := h.log.With(zap.String("request_id", id))
	w.Header().Set(headerRequestID, id)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	ctx, cancel := context.WithTimeout(r.Context(), bulkTimeout)
	defer cancel()
	body, err := h.answer(ctx, w, r, log)
	status, mime := http.StatusOK, "application/json"
	if err != nil {
		v := h.problems.verdict(err)
		if wait := v.retryAfter(true); wait != "" {
			w.Header().Set("Retry-After", wait)
		}
		if v.Status >= http.StatusInternalServerError {
			log.Error("pictures not asked for anew", zap.Error(err))
		}
		body, status, mime = v.body(r.URL.Path, id), v.Status, problemMIME
	}
	w.Header().Set("Content-Type", mime)
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil { //nolint:gosec // JSON, and nobody may take it for HTML
		log.Debug("client gone", zap.Error(err))
	}
}

func (h *bulkHandler) answer(ctx context.Context, w http.ResponseWriter, r *http.Request, log *zap.Logger) ([]byte, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, &httpError{codeMethod, "the Allow header lists what this path takes"}
	}
	body, err := readBulk(w, r)
	if err != nil {
		return nil, err
	}
	ask, err := decodeBulk(body)
	if err != nil {
		return nil, err
	}
	done, err := h.bulk.Reprocess(ctx, ask.which, ask.after, ask.limit)
	if err != nil {
		return nil, fmt.Errorf("reprocess pictures: %w", err)
	}
	log.Info("pictures asked for anew", zap.Any("which", ask.which), zap.Int64("after", int64(ask.after)),
		zap.Int("requested", done.Requested), zap.Int("skipped", done.Skipped), zap.Int64("next", int64(done.Next)),
		zap.Duration("spread", done.Spread))
	dto := bulkDTO{
		Requested: done.Requested, Skipped: done.Skipped, Next: known(int64(done.Next)),
		Spread: int64(math.Ceil(done.Spread.Seconds())),
	}
	encoded, err := json.Marshal(dto)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return encoded, nil
}

// readBulk returns the request's body.
func readBulk(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if reason := wrongType(r.Header.Get("Content-Type"), r.Header.Get("Content-Encoding"), "application/json"); reason != "" {
		return nil, &httpError{codeMediaType, reason}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBulkBody))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, &httpError{codeBodyTooLarge, "the body is larger than this server takes"}
	}
	if err != nil {
		return nil, &httpError{codeBadRequest, "the body did not arrive"}
	}
	return body, nil
}

// bulkRequest is which pictures to ask for.
type bulkRequest struct {
	which catalog.Selection
	after catalog.ImageID
	limit int
}

// decodeBulk reads the body. All wrong fields are told at once. A filter that is there and empty is a mistake: a script
// whose variable is not set must not ask for everything.
func decodeBulk(body []byte) (bulkRequest, error) {
	o, err := parseObject(body)
	if err != nil {
		return bulkRequest{}, err
	}
	var ask bulkRequest
	filters := 0
	for _, filter := range []struct {
		name string
		read func(text string) (code, detail string)
	}{
		{"status", ask.readStatus}, {"code", ask.readCode}, {"older_than", ask.readAge}, {"pipeline_hash", ask.readHash},
	} {
		if !o.has(filter.name) {
			continue
		}
		filters++
		wrong := len(o.wrong)
		text := o.text(filter.name)
		if code, detail := filter.read(text); code != "" && len(o.wrong) == wrong {
			o.refuse(pointer(filter.name), code, detail)
		}
	}
	if filters == 0 {
		o.refuse("", "required", "give at least one of status, code, older_than and pipeline_hash")
	}
	ask.limit = defaultBulkLimit
	if o.has("limit") {
		ask.limit = int(o.between("limit", 1, maxBulkLimit))
	}
	ask.after = catalog.ImageID(o.between("after", 0, math.MaxInt64))
	o.refuseRest()
	return ask, o.verdict(nil)
}

func (b *bulkRequest) readStatus(text string) (code, detail string) {
	b.which.Status = catalog.Status(text)
	switch b.which.Status {
	case catalog.Pending, catalog.Ready, catalog.Failed:
		return "", ""
	default:
		return "unknown_value", "one of pending, ready, failed"
	}
}

func (b *bulkRequest) readCode(text string) (code, detail string) {
	b.which.Code = media.Code(text)
	if _, ok := media.Codes()[b.which.Code]; !ok {
		names := slices.Sorted(maps.Keys(media.Codes()))
		return "unknown_value", fmt.Sprintf("one of %s", names)
	}
	return "", ""
}

func (b *bulkRequest) readAge(text string) (code, detail string) {
	age, err := time.ParseDuration(text)
	if err != nil || age <= 0 {
		return "invalid_duration", "must be a time such as 36h or 90m, above zero"
	}
	b.which.OlderThan = age
	return "", ""
}

func (b *bulkRequest) readHash(text string) (code, detail string) {
	b.which.PipelineHash = text
	if raw, err := hex.DecodeString(text); err != nil || len(raw) != 32 || strings.ToLower(text) != text {
		return "invalid_hash", "must be a pipeline's hash: 64 hexadecimal digits"
	}
	return "", ""
}

// between reads a whole number in a range; one that is absent is 0.
func (o *object) between(name string, least, most int64) int64 {
	there, wrong := o.has(name), len(o.wrong)
	n := o.whole(name)
	if there && len(o.wrong) == wrong && (n < least || n > most) {
		o.refuse(pointer(name), "out_of_range", fmt.Sprintf("a whole number from %d to %d", least, most))
	}
	return n
}
