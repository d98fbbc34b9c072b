package main

import (
	"encoding/json"
	"strings"
	"time"

	"vitrine.io/pkg/test/client"
)

// Snapshot is the final state of a run, with the history of its rows and events.
type Snapshot struct {
	Products     []ProductRow
	Images       []ImageRow
	Deletions    []DeletionRow
	Changes      []Change    // of products and images, in commit order
	Jobs         []JobChange // of rows of image_jobs, in commit order
	Backfills    []BackfillRow
	Outbox       int // number of rows
	Parked       int // number of parked rows
	Events       []Event
	Objects      map[string]Object // by key
	Responses    []ProductResponse // of both APIs, for each product
	Lists        []ListResponse
	Expectations []*Expectation
	Outages      []Outage

	// AfterDeletions is the content of the bucket after all scheduled deletions, by key.
	AfterDeletions map[string]Object

	PublicURL string // what precedes an object's key in the API's URLs

	recorded []recordedChange // from which Changes and Jobs are made
}

// Outage is the time for which the resolver or egress was away.
type Outage struct {
	Kind     Kind
	From, To time.Time
}

// ProductRow is a row of products.
type ProductRow struct {
	ID          int64       `json:"id"`
	UserID      int64       `json:"user_id"`
	Name        string      `json:"product_name"`
	Description string      `json:"product_description"`
	Price       json.Number `json:"product_price"`
	URLs        []string    `json:"product_images"`
	Compressed  []string    `json:"compressed_product_images"`
	Version     int64       `json:"version"`
	Revision    int64       `json:"revision"`
	DeletedAt   *string     `json:"deleted_at"`
}

// Deleted reports whether the product is deleted.
func (p ProductRow) Deleted() bool { return p.DeletedAt != nil }

// ImageRow is a row of images with the row of its job, whose columns replace those of the same name.
type ImageRow struct {
	ID             int64          `json:"id"`
	ProductID      int64          `json:"product_id"`
	Position       int            `json:"position"`
	SourceURL      string         `json:"source_url"`
	Status         string         `json:"status"`
	JobState       string         `json:"job_state"`
	JobID          *string        `json:"job_id"`
	FencingToken   int64          `json:"fencing_token"`
	Attempts       int            `json:"attempts"`
	Prefix         string         `json:"prefix"`
	ErrorCode      string         `json:"error_code"`
	ReprocessError string         `json:"reprocess_error"`
	Width          int            `json:"width"`
	Height         int            `json:"height"`
	Renditions     []RenditionRow `json:"renditions"`
	OutputHash     string         `json:"output_hash"`
	SourceSHA256   string         `json:"source_sha256"`
	OriginalKey    string         `json:"original_key"`
	BackfillID     int64          `json:"backfill_id"` // of the job; without one the last that has tried the image
}

// jobID returns the ID of the pending job, or "".
func (i ImageRow) jobID() string {
	if i.JobID == nil {
		return ""
	}
	return *i.JobID
}

// objectPrefix returns the prefix of the image's published objects, or "".
func (i ImageRow) objectPrefix() string {
	if len(i.Renditions) == 0 {
		return ""
	}
	return i.Renditions[0].Key[:strings.LastIndexByte(i.Renditions[0].Key, '/')+1]
}

// RenditionRow is one stored file of an image.
type RenditionRow struct {
	Name    string `json:"name"`
	Format  string `json:"format"`
	Width   int    `json:"width"`
	Height  int    `json:"height"`
	Bytes   int64  `json:"bytes"`
	Key     string `json:"key"`
	Default bool   `json:"default"`
}

// DeletionRow is a row of scheduled_deletions.
type DeletionRow struct {
	Prefix  string  `json:"prefix"`
	ImageID int64   `json:"image_id"`
	DueAt   string  `json:"due_at"`
	Started *string `json:"started_at"`
}

// Change is the change of a row of products, or that of an image with its job by one transaction. The old row is nil for
// INSERT, the new one for DELETE.
type Change struct {
	At                     time.Time
	Kind, Op               string // products or images; INSERT, UPDATE or DELETE
	OldProduct, NewProduct *ProductRow
	OldImage, NewImage     *ImageRow
}

// JobRow is a row of image_jobs.
type JobRow struct {
	ImageID    int64   `json:"image_id"`
	JobID      string  `json:"job_id"`
	Host       string  `json:"host"`
	ReleasedAt *string `json:"released_at"`
}

// JobChange is one change of a row of image_jobs. Old is nil for INSERT, New for DELETE.
type JobChange struct{ Old, New *JobRow }

// Event is a record of a topic.
type Event struct {
	Topic string // without the run's prefix
	ID    string
	Type  string

	ProductID    int64  `json:"product_id"`
	Version      int64  `json:"product_version"`
	Deleted      bool   `json:"deleted"`
	ImageID      int64  `json:"image_id"`
	FencingToken int64  `json:"fence"`
	Code         string `json:"code"`
	Reason       string `json:"reason"`
}

// Object is an object of one of the buckets. Only Bytes is set if it was listed but not downloaded.
type Object struct {
	Bytes         int64
	SHA256        string // in hex
	Type          string // Content-Type
	Format        string // jpeg or webp, found by decoding; empty if Err is set
	Width, Height int
	Err           string // why it does not decode
}

// ProductResponse is an API's response to a GET of a product.
type ProductResponse struct {
	API     string
	ID      int64 // requested
	Status  int
	ETag    string
	Product client.Product
	Body    []byte
}

// ListResponse is an API's list of a user's products, all pages of it. Err is set if a request failed.
type ListResponse struct {
	API    string
	UserID int64
	Items  []json.RawMessage
	Err    string
}

// Finding is one violation of a rule.
type Finding struct {
	Rule   string `json:"rule"`
	Detail string `json:"detail"`
}

// String returns the finding as one line.
func (f Finding) String() string { return f.Rule + ": " + f.Detail }
