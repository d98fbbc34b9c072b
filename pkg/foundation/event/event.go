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
	TopicRequested = "vitrine.images.requested" // work for the image workers
	TopicChanged   = "vitrine.products.changed" // a product's visible state changed
	TopicDead      = "vitrine.images.dead"      // pictures that were given up, and records that nobody could read
)

// Topics lists every topic, in the order in which they are made.
func Topics() []string { return []string{TopicRequested, TopicChanged, TopicDead} }

// The message types.
const (
	TypeImageRequested = "image.requested"
	TypeProductChanged = "product.changed"
	TypeImageDead      = "image.dead"
	TypeUndecodable    = "record.undecodable"
)

// Version is the version of every body defined here.
const Version = 1

// The names of a message's headers.
const (
	HeaderID          = "event-id"
	HeaderType        = "event-type"
	HeaderVersion     = "event-version"
	HeaderTraceparent = "traceparent"
)

// Message is one event as it stands in the outbox and travels through Kafka.
type Message struct {
	ID          string // UUID; a repeated message has the same one
	Topic       string
	Key         string // the product's id in decimal
	Type        string
	Version     int
	Traceparent string // W3C trace context, "" when there is none
	Body        []byte // JSON
}

// MaxHeaders is how many headers a message has at most.
const MaxHeaders = 4

// Headers returns the message's headers, without the empty ones.
func (m Message) Headers() map[string]string { return maps.Collect(m.EachHeader()) }

// EachHeader goes over the names and values of Headers, always in the same order.
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

// FromRecord rebuilds a message from what Kafka delivered. It fails when a header is missing or the version is not a
// positive number.
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

// ImageRequested asks the workers to make a picture's renditions. The message's id is the picture's ticket: only the
// holder of the ticket that stands in the picture's row may begin.
type ImageRequested struct {
	ProductID    int64  `json:"product_id"`
	ImageID      int64  `json:"image_id"`
	SourceURL    string `json:"source_url"`
	PipelineHash string `json:"pipeline_hash"` // the exact specification to use
}

// ProductChanged says that a product's visible state is now at Version.
type ProductChanged struct {
	ProductID int64 `json:"product_id"`
	Version   int64 `json:"product_version"`
	Deleted   bool  `json:"deleted"`
}

// ImageDead says that a picture was given up.
type ImageDead struct {
	ProductID    int64  `json:"product_id"`
	ImageID      int64  `json:"image_id"`
	FencingToken int64  `json:"fence"` // of the attempt that failed; a replay acts only if the row still has it
	Code         string `json:"code"`
	Detail       string `json:"detail"`
	SourceURL    string `json:"source_url"`
	Attempts     int    `json:"attempts"`
	PipelineHash string `json:"pipeline_hash"`
}

// Undecodable is a record that could not be read, kept with its coordinates.
type Undecodable struct {
	Reason    string            `json:"reason"`
	Topic     string            `json:"topic"`
	Partition int32             `json:"partition"`
	Offset    int64             `json:"offset"`
	Headers   map[string]string `json:"headers"`
	Payload   []byte            `json:"payload"` // base64 in JSON; cut to MaxPayload
	Truncated bool              `json:"truncated"`
}

// MaxPayload is how much of an undecodable record's payload is kept, in bytes: base64 makes it 700 kB, below Kafka's
// default message limit of 1 MB.
const MaxPayload = 512 << 10

// Body is one of the bodies defined in this package.
type Body interface{ kind() (topic, kind string) }

func (ImageRequested) kind() (string, string) { return TopicRequested, TypeImageRequested }
func (ProductChanged) kind() (string, string) { return TopicChanged, TypeProductChanged }
func (ImageDead) kind() (string, string)      { return TopicDead, TypeImageDead }
func (Undecodable) kind() (string, string)    { return TopicDead, TypeUndecodable }

// New returns the message that carries body: id is its event id, key its product id ("" for an Undecodable without one).
func New(id, key string, body Body) Message {
	topic, kind := body.kind()
	raw, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("event: %T cannot be encoded: %v", body, err)) // the bodies hold only strings, numbers and bytes
	}
	return Message{ID: id, Topic: topic, Key: key, Type: kind, Version: Version, Body: raw}
}

// Key returns the message key of a product.
func Key(productID int64) string { return strconv.FormatInt(productID, 10) }

// Decode reads m's body into the type that B names. It fails on another type, a newer version, anything but one JSON
// object, and an id below one. Unknown fields are accepted: a newer writer may have added them.
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
	if bytes.HasPrefix(bytes.TrimSpace(m.Body), []byte("n")) { // null leaves body as it was, without an error
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
