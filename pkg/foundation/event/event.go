package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strconv"
	"strings"
)

// The topics.
const (
	TopicRequested = "vitrine.images.requested" // jobs for the workers
	TopicBackfill  = "vitrine.images.backfill"  // jobs of backfills, for slots of the workers that other jobs leave idle
	TopicChanged   = "vitrine.products.changed" // the visible state of a product changed
	TopicDead      = "vitrine.images.dead"      // images that failed, and records that could not be decoded
)

// Topics returns every topic, in the order in which they are created.
func Topics() []string { return []string{TopicRequested, TopicChanged, TopicDead, TopicBackfill} }

// The message types.
const (
	TypeImageRequested = "image.requested"
	TypeImageBackfill  = "image.backfill"
	TypeImageCanary    = "image.canary"
	TypeProductChanged = "product.changed"
	TypeImageDead      = "image.dead"
	TypeUndecodable    = "record.undecodable"
)

// Version is the version of the bodies of this package.
const Version = 1

// The names of the headers of a message.
const (
	HeaderID          = "event-id"
	HeaderType        = "event-type"
	HeaderVersion     = "event-version"
	HeaderTraceparent = "traceparent"
)

// Message is an event as stored in the outbox and in Kafka.
type Message struct {
	ID          string // UUID; a message that is published again keeps it
	Topic       string
	Key         string // the product's id in decimal
	Type        string
	Version     int
	Traceparent string // W3C trace context, "" when there is none
	Body        []byte // JSON
}

// MaxHeaders is the maximum number of headers of a message.
const MaxHeaders = 4

// Headers returns the headers of the message, without an empty traceparent.
func (m Message) Headers() map[string]string { return maps.Collect(m.EachHeader()) }

// EachHeader iterates over the names and values of Headers, always in the same order.
func (m Message) EachHeader() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		more := yield(HeaderID, m.ID) && yield(HeaderType, m.Type) && yield(HeaderVersion, strconv.Itoa(m.Version))
		if more && m.Traceparent != "" {
			yield(HeaderTraceparent, m.Traceparent)
		}
	}
}

// TraceID returns the trace id of a W3C traceparent (version-traceid-parentid-flags), or "" if it does not have four parts.
func TraceID(traceparent string) string {
	if strings.Count(traceparent, "-") != 3 {
		return ""
	}
	_, rest, _ := strings.Cut(traceparent, "-")
	id, _, _ := strings.Cut(rest, "-")
	return id
}

// FromRecord returns the message of a Kafka record. It returns an error if a header other than traceparent is missing, or if
// the version is not a positive number.
func FromRecord(topic string, key, body []byte, headers map[string]string) (Message, error) {
	m := Message{
		ID: headers[HeaderID], Topic: topic, Key: string(key), Type: headers[HeaderType],
		Traceparent: headers[HeaderTraceparent], Body: body,
	}
	if m.ID == "" || m.Type == "" {
		return Message{}, fmt.Errorf("headers %s and %s are required", HeaderID, HeaderType)
	}
	v, err := strconv.Atoi(headers[HeaderVersion])
	if err != nil || v < 1 {
		return Message{}, fmt.Errorf("header %s: %q is not a version", HeaderVersion, headers[HeaderVersion])
	}
	m.Version = v
	return m, nil
}

// ImageRequested requests the renditions of an image. The id of the message is the job id: a worker may begin only the job
// whose id is in the row of the image.
type ImageRequested struct {
	ProductID    int64  `json:"product_id"`
	ImageID      int64  `json:"image_id"`
	SourceURL    string `json:"source_url"`
	PipelineHash string `json:"pipeline_hash"` // names the specification to use
}

// ImageBackfill requests the renditions of an image for a backfill. It is a job as ImageRequested is, on a topic of its own.
type ImageBackfill struct {
	ProductID    int64  `json:"product_id"`
	ImageID      int64  `json:"image_id"`
	SourceURL    string `json:"source_url"`
	PipelineHash string `json:"pipeline_hash"`
	BackfillID   int64  `json:"backfill_id"` // a job of a backfill that is suspended or has ended is dropped

	// Source is SourceOriginal if the kept original is to be read, and empty if SourceURL is. Workers of earlier releases
	// ignore it, and read SourceURL.
	Source string `json:"source,omitempty"`
}

func (b ImageBackfill) check() error {
	if b.ProductID < 1 || b.ImageID < 1 || b.PipelineHash == "" || b.BackfillID < 1 {
		return errors.New("product_id, image_id, pipeline_hash and backfill_id are required")
	}
	return nil
}

// ImageCanary requests a sample of the canary of a backfill. The id of the message is that of the sample.
type ImageCanary struct {
	ProductID    int64  `json:"product_id"`
	ImageID      int64  `json:"image_id"`
	SourceURL    string `json:"source_url"` // may be empty: the image is deleted
	PipelineHash string `json:"pipeline_hash"`
	BackfillID   int64  `json:"backfill_id"`
	Source       string `json:"source,omitempty"` // as in ImageBackfill
}

// SourceOriginal is the value of ImageBackfill.Source for an image whose original is kept.
const SourceOriginal = "original"

// ProductChanged says that the visible state of a product has reached Version.
type ProductChanged struct {
	ProductID int64 `json:"product_id"`
	Version   int64 `json:"product_version"`
	Deleted   bool  `json:"deleted"`
}

// ImageDead says that an image failed.
type ImageDead struct {
	ProductID    int64  `json:"product_id"`
	ImageID      int64  `json:"image_id"`
	FencingToken int64  `json:"fence"` // of the attempt that failed; a replay does nothing if the row has another one
	Code         string `json:"code"`
	Detail       string `json:"detail"`
	SourceURL    string `json:"source_url"`
	Attempts     int    `json:"attempts"`
	PipelineHash string `json:"pipeline_hash"`
}

// Undecodable is a record that could not be decoded, with its coordinates.
type Undecodable struct {
	Reason    string            `json:"reason"`
	Topic     string            `json:"topic"`
	Partition int32             `json:"partition"`
	Offset    int64             `json:"offset"`
	Headers   map[string]string `json:"headers"`
	Payload   []byte            `json:"payload"` // base64 in JSON; cut to MaxPayload
	Truncated bool              `json:"truncated"`
}

// MaxPayload is the maximum payload of an Undecodable, in bytes. In base64 it is 700 kB, below Kafka's default limit for a
// message, 1 MB.
const MaxPayload = 512 << 10

// Body is one of the bodies defined in this package.
type Body interface{ kind() (topic, kind string) }

func (ImageRequested) kind() (string, string) { return TopicRequested, TypeImageRequested }
func (ImageBackfill) kind() (string, string)  { return TopicBackfill, TypeImageBackfill }
func (ImageCanary) kind() (string, string)    { return TopicBackfill, TypeImageCanary }
func (ProductChanged) kind() (string, string) { return TopicChanged, TypeProductChanged }
func (ImageDead) kind() (string, string)      { return TopicDead, TypeImageDead }
func (Undecodable) kind() (string, string)    { return TopicDead, TypeUndecodable }

// New returns a message with the body: id is its event id, key its product id ("" for an Undecodable without one). It panics
// if body cannot be encoded, which the bodies of this package always can.
func New(id, key string, body Body) Message {
	topic, kind := body.kind()
	raw, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("event: %T cannot be encoded: %v", body, err)) // not a body of this package
	}
	return Message{ID: id, Topic: topic, Key: key, Type: kind, Version: Version, Body: raw}
}

// Key returns the message key of a product.
func Key(productID int64) string { return strconv.FormatInt(productID, 10) }

// Decode decodes the body of m. It returns an error if m has another type or a newer version, if the body is not one JSON
// object, or if a required field is missing or below one. It ignores unknown fields: a newer producer may have added them.
func Decode[B Body](m Message) (B, error) {
	var body B
	_, kind := body.kind()
	if m.Type != kind {
		return body, fmt.Errorf("event type is %q, not %q", m.Type, kind)
	}
	if m.Version > Version {
		return body, fmt.Errorf("%s version %d is newer than %d", m.Type, m.Version, Version)
	}
	if err := json.Unmarshal(m.Body, &body); err != nil {
		return body, fmt.Errorf("%s body: %w", m.Type, err)
	}
	if bytes.HasPrefix(bytes.TrimSpace(m.Body), []byte("n")) { // Unmarshal of null changes nothing and returns no error
		return body, fmt.Errorf("%s body: null is not an object", m.Type)
	}
	return body, check(body)
}

func check(body Body) error {
	switch b := body.(type) {
	case ImageRequested:
		if b.ProductID < 1 || b.ImageID < 1 || b.PipelineHash == "" {
			return errors.New("product_id, image_id and pipeline_hash are required")
		}
	case ImageBackfill:
		return b.check()
	case ImageCanary:
		return ImageBackfill(b).check()
	case ProductChanged:
		if b.ProductID < 1 || b.Version < 1 {
			return errors.New("product_id and product_version are required")
		}
	case ImageDead:
		if b.ProductID < 1 || b.ImageID < 1 {
			return errors.New("product_id and image_id are required")
		}
	}
	return nil
}
