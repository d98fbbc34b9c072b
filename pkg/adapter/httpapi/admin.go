package httpapi

import (
	"context"
	"encoding/hex"
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

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
)

// The bounds of a request for many images. Each image is a transaction of some milliseconds, so maxBulkLimit of them end
// well within bulkTimeout, which is below the admin server's timeout for a response.
const (
	defaultBulkLimit = 100
	maxBulkLimit     = 1000
	bulkTimeout      = 25 * time.Second
	maxBulkBody      = 4 << 10 // bytes

	bulkPath = "/images/reprocess"
)

// BulkReprocessor requests many images again; they are processed in the background.
type BulkReprocessor interface {
	// Reprocess requests at most limit of the images that match filter and have ids above after, in the order of their
	// ids. It may be repeated: images that are queued or processing are skipped.
	Reprocess(ctx context.Context, filter catalog.Filter, after catalog.ImageID, limit int) (catalog.BulkResult, error)
	// ReprocessOnce is Reprocess for a request that a client may repeat under the same key: it returns what respond returned
	// for the result, or the response that an earlier request saved. It does not return catalog.ErrInProgress: a request waits
	// for an earlier one. catalog.ErrKeyReused if the key was used for something else.
	ReprocessOnce(ctx context.Context, filter catalog.Filter, after catalog.ImageID, limit int, key catalog.IdempotencyKey,
		respond func(catalog.BulkResult) (catalog.SavedResponse, error),
	) (saved catalog.SavedResponse, replayed bool, err error)
}

// reprocessHandler handles POST /images/reprocess.
type reprocessHandler struct {
	bulk     BulkReprocessor
	problems problemTable
	log      *zap.Logger
	requests atomic.Int64
}

// NewReprocessHandler returns the handler of POST /images/reprocess; other methods get a problem. It is for the admin port:
// it does not authenticate its clients.
func NewReprocessHandler(bulk BulkReprocessor, log *zap.Logger) http.Handler {
	return &reprocessHandler{bulk: bulk, problems: newProblemTable(), log: log}
}

// bulkDTO is the body of the response.
type bulkDTO struct {
	Requested int    `json:"requested"`
	Skipped   int    `json:"skipped"`
	Next      *int64 `json:"next"` // the value of after for the next request; null at the end
	Spread    int64  `json:"spread_seconds"`
}

// ServeHTTP implements http.Handler.
func (h *reprocessHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get(headerRequestID)
	if !fitForLog(id) {
		id = "reprocess-" + strconv.FormatInt(h.requests.Add(1), 10)
	}
	log := h.log.With(zap.String("request_id", id))
	ctx, cancel := context.WithTimeout(r.Context(), bulkTimeout)
	defer cancel()
	resp, err := h.reprocess(ctx, w, r, log)
	if err != nil {
		p := h.problems.problemOf(err)
		if p.Status >= http.StatusInternalServerError {
			log.Error("reprocess request failed", zap.Error(err))
		}
		resp = p.response(r.URL.Path, id, true)
	}
	w.Header().Set(headerRequestID, id)
	w.Header().Set(fiber.HeaderXContentTypeOptions, "nosniff")
	for name, value := range resp.Headers {
		w.Header().Set(name, value)
	}
	w.WriteHeader(resp.Status)
	if _, err := w.Write(resp.Body); err != nil {
		log.Debug("client gone", zap.Error(err))
	}
}

func (h *reprocessHandler) reprocess(ctx context.Context, w http.ResponseWriter, r *http.Request, log *zap.Logger,
) (response, error) {
	if r.Method != http.MethodPost {
		w.Header().Set(fiber.HeaderAllow, http.MethodPost)
		return response{}, &httpError{codeMethod, "the Allow header lists the methods of this path"}
	}
	body, err := readBulk(w, r)
	if err != nil {
		return response{}, err
	}
	key, outside := bulkKey(r)
	req, err := decodeBulk(body, outside)
	if err != nil {
		return response{}, err
	}
	respond := func(result catalog.BulkResult) (response, error) {
		log.Info("images requested again", zap.Any("filter", req.filter), zap.Int64("after", int64(req.after)),
			zap.Int("requested", result.Requested), zap.Int("skipped", result.Skipped), zap.Int64("next", int64(result.Next)),
			zap.Duration("spread", result.Spread))
		return bulkResponse(result)
	}
	if key != "" {
		return h.reprocessOnce(ctx, req, key, respond)
	}
	result, err := h.bulk.Reprocess(ctx, req.filter, req.after, req.limit)
	if err != nil {
		return response{}, fmt.Errorf("reprocess images: %w", err)
	}
	return respond(result)
}

// reprocessOnce is reprocess for a request with an Idempotency-Key.
func (h *reprocessHandler) reprocessOnce(ctx context.Context, req bulkRequest, key string,
	respond func(catalog.BulkResult) (response, error),
) (response, error) {
	f := req.filter
	digest, err := fingerprint("POST "+bulkPath, []any{f.Status, f.Code, f.OlderThan, f.PipelineHash, req.after, req.limit})
	if err != nil {
		return response{}, err
	}
	owned := catalog.IdempotencyKey{Principal: principalImages, Key: key, Fingerprint: digest}
	saved, replayed, err := h.bulk.ReprocessOnce(ctx, req.filter, req.after, req.limit, owned, saving(respond))
	return firstResponse("reprocess images once", saved, replayed, err)
}

func bulkResponse(result catalog.BulkResult) (response, error) {
	encoded, err := encodeJSON(bulkDTO{
		Requested: result.Requested, Skipped: result.Skipped, Next: nonZero(int64(result.Next)),
		Spread: int64(math.Ceil(result.Spread.Seconds())),
	})
	if err != nil {
		return response{}, fmt.Errorf("encode result: %w", err)
	}
	return response{Status: http.StatusOK, Body: encoded, Headers: map[string]string{
		fiber.HeaderContentType: fiber.MIMEApplicationJSON, fiber.HeaderCacheControl: "no-store",
	}}, nil
}

// bulkKey returns the request's Idempotency-Key, "" if there is none, and the errors of header and query string.
func bulkKey(r *http.Request) (key string, outside fieldErrors) {
	var args fasthttp.Args
	args.Parse(r.URL.RawQuery)
	outside = readParams(&args, nil).wrong
	key, wrong := idempotencyKey(r.Header.Values(headerKey))
	if wrong != nil {
		outside = append(outside, *wrong)
	}
	return key, outside
}

// readBulk returns the request's body.
func readBulk(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	err := checkMediaType(r.Header.Get(fiber.HeaderContentType), r.Header.Values(fiber.HeaderContentEncoding),
		fiber.MIMEApplicationJSON)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBulkBody))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, &httpError{codeBodyTooLarge, "the body is larger than this server accepts"}
	}
	if err != nil {
		return nil, &httpError{codeBadRequest, "the body did not arrive completely"}
	}
	return body, nil
}

// bulkRequest selects images.
type bulkRequest struct {
	filter catalog.Filter
	after  catalog.ImageID
	limit  int
}

// decodeBulk reads the body. The error lists all wrong fields, and those outside the body.
func decodeBulk(body []byte, outside fieldErrors) (bulkRequest, error) {
	r, err := newFieldReader(body, outside)
	if err != nil {
		return bulkRequest{}, err
	}
	req := bulkRequest{filter: r.filter(), limit: defaultBulkLimit}
	if r.has("limit") {
		req.limit = int(r.between("limit", 1, maxBulkLimit))
	}
	req.after = catalog.ImageID(r.between("after", 0, math.MaxInt64))
	return req, r.finish(nil)
}

// checkSelection refuses a request that has neither a condition nor all: true, or both.
func (r *fieldReader) checkSelection() {
	conditions := slices.ContainsFunc([]string{"status", "code", "older_than", "pipeline_hash"}, r.has)
	wrong := len(r.wrong)
	switch all := r.boolean("all"); {
	case all && conditions:
		r.refuse("all", "unexpected", "selects every image, and cannot be given with status, code, older_than or pipeline_hash")
	case !all && !conditions && len(r.wrong) == wrong:
		r.wrong.add(inBody, "", "required", "give at least one of status, code, older_than and pipeline_hash, or all: true")
	}
}

// filter reads the fields that select images: conditions, or all: true. An empty value of a condition is an error, because a
// script whose variable is not set must not select every image.
func (r *fieldReader) filter() (filter catalog.Filter) {
	r.checkSelection()
	if text, ok := r.given("status"); ok {
		filter.Status = catalog.Status(text)
		if !slices.Contains([]catalog.Status{catalog.Pending, catalog.Ready, catalog.Failed}, filter.Status) {
			r.refuse("status", "unknown_value", "one of pending, ready, failed")
		}
	}
	if text, ok := r.given("code"); ok {
		filter.Code = media.Code(text)
		if _, known := media.Codes()[filter.Code]; !known {
			r.refuse("code", "unknown_value", fmt.Sprintf("one of %s", slices.Sorted(maps.Keys(media.Codes()))))
		}
	}
	if text, ok := r.given("older_than"); ok {
		var err error
		if filter.OlderThan, err = time.ParseDuration(text); err != nil || filter.OlderThan <= 0 {
			r.refuse("older_than", "invalid_duration", "must be a duration such as 36h or 90m, above zero")
		}
	}
	if text, ok := r.given("pipeline_hash"); ok {
		filter.PipelineHash = text
		if raw, err := hex.DecodeString(text); err != nil || len(raw) != 32 || strings.ToLower(text) != text {
			r.refuse("pipeline_hash", "invalid_hash", "must be a pipeline's hash: 64 hexadecimal digits")
		}
	}
	return filter
}
