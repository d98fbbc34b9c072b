package main

import (
	"encoding/json"
	"strings"

	"vitrine.io/pkg/test/client"
)

// Snapshot is everything that is left of a run once all has settled, as the checker has gathered it.
type Snapshot struct {
	Products  []ProductRow
	Images    []ImageRow
	Deletions []DeletionRow
	Changes   []Change // of products' and pictures' rows, in their order
	Outbox    int      // rows that are left
	Parked    int      // of them, those given up
	Events    []Event
	Objects   map[string]Object // by key
	Responses   []ProductResponse         // of both APIs
	Lists     []ListResponse
	Expectations   []*Expectation

	// AfterDeletions holds what is in the bucket when every intent has come due and been dealt with.
	AfterDeletions map[string]Object

	PublicURL string // what the API puts before an object's key
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

// Deleted says whether clients no longer see the product.
func (p ProductRow) Deleted() bool { return p.DeletedAt != nil }

// ImageRow is a row of images.
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
}

// jobID is the request that may begin, or "".
func (i ImageRow) jobID() string {
	if i.JobID == nil {
		return ""
	}
	return *i.JobID
}

// objectPrefix is where the picture's objects stand, or "".
func (i ImageRow) objectPrefix() string {
	if len(i.Renditions) == 0 {
		return ""
	}
	return i.Renditions[0].Key[:strings.LastIndexByte(i.Renditions[0].Key, '/')+1]
}

// RenditionRow is one stored file of a picture.
type RenditionRow struct {
	Name    string `json:"name"`
	Format  string `json:"format"`
	Width   int    `json:"width"`
	Height  int    `json:"height"`
	Bytes   int64  `json:"bytes"`
	Key     string `json:"key"`
	Default bool   `json:"default"`
}

// DeletionRow is a row of intents.
type DeletionRow struct {
	Prefix  string  `json:"prefix"`
	ImageID int64   `json:"image_id"`
	DueAt   string  `json:"due_at"`
	Started *string `json:"started_at"`
}

// Change is what the database noted of one change of a row: before and after, whichever there is.
type Change struct {
	Kind, Op                 string // products or images; INSERT, UPDATE or DELETE
	OldProduct, NewProduct   *ProductRow
	OldImage, NewImage       *ImageRow
	rawOld, rawNew []byte
}

// Event is a record of one of the topics.
type Event struct {
	Topic string // without the run's prefix
	ID    string
	Type  string

	ProductID int64  `json:"product_id"`
	Version   int64  `json:"product_version"`
	Deleted   bool   `json:"deleted"`
	ImageID   int64  `json:"image_id"`
	FencingToken     int64  `json:"fence"`
	Code      string `json:"code"`
	Reason    string `json:"reason"`
}

// Object is what is in the bucket under one key.
type Object struct {
	Bytes         int64
	Type          string // Content-Type
	Format        string // as it decodes: jpeg, webp; empty if it does not
	Width, Height int
	Err           string // why it does not decode
}

// ProductResponse is what an API answers about a product.
type ProductResponse struct {
	API     string
	ID      int64 // that was asked for
	Status  int
	ETag    string
	Product client.Product
	Body    []byte
}

// ListResponse is what an API answers about a user's products, all pages of it.
type ListResponse struct {
	API    string
	UserID int64
	Items  []json.RawMessage
	Err    string
}

// Finding is one thing that must not be.
type Finding struct {
	Rule   string `json:"rule"`
	Detail string `json:"detail"`
}

// String is the finding as one line.
func (f Finding) String() string { return f.Rule + ": " + f.Detail }
