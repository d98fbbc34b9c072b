package postgres

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// asJSON is a column that is read or written as JSON.
type asJSON[T any] struct{ V T }

// Scan implements sql.Scanner. NULL is the zero value.
func (c *asJSON[T]) Scan(src any) error {
	var zero T
	c.V = zero
	var text sql.Null[[]byte]
	if err := text.Scan(src); err != nil || !text.Valid {
		return err
	}
	if err := json.Unmarshal(text.V, &c.V); err != nil {
		return fmt.Errorf("read JSON column: %w", err)
	}
	return nil
}

// Value implements driver.Valuer. It returns a string.
func (c asJSON[T]) Value() (driver.Value, error) {
	text, err := json.Marshal(c.V)
	if err != nil {
		return nil, fmt.Errorf("write JSON column: %w", err)
	}
	return string(text), nil
}

// productRow is a product as productColumns selects it.
type productRow struct {
	ID                      int64
	UserID                  int64
	ProductName             string
	ProductDescription      string
	ProductImages           asJSON[[]string]
	CompressedProductImages asJSON[[]string]
	ProductPrice            decimal.Decimal
	Version                 int64
	Revision                int64
	CreatedAt               time.Time
	UpdatedAt               time.Time
	Deleted                 bool
	Images                  asJSON[[]imageAndJob]
}

// fromRow returns the product. A deleted one has only its id and version.
func (r productRow) fromRow() catalog.Product {
	if r.Deleted {
		return catalog.Product{ID: catalog.ProductID(r.ID), Version: r.Version, Deleted: true}
	}
	return catalog.Product{
		ID:          catalog.ProductID(r.ID),
		UserID:      catalog.UserID(r.UserID),
		Name:        r.ProductName,
		Description: r.ProductDescription,
		Price:       r.ProductPrice,
		ImageURLs:   r.ProductImages.V,
		Compressed:  r.CompressedProductImages.V,
		Images:      imagesOfRows(r.Images.V),
		Version:     r.Version,
		Revision:    r.Revision,
		CreatedAt:   r.CreatedAt.UTC(),
		UpdatedAt:   r.UpdatedAt.UTC(),
	}
}

// imageAndJob is an image as imagesOf selects it.
type imageAndJob struct {
	Image imageRow `json:"image"`
	Job   *jobRow  `json:"job"` // nil if the image is idle
}

func (r imageAndJob) fromRow() catalog.Image {
	img := r.Image.fromRow()
	if r.Job != nil {
		r.Job.addTo(&img)
	}
	return img
}

func imagesOfRows(rows []imageAndJob) []catalog.Image {
	images := make([]catalog.Image, len(rows))
	for i, r := range rows {
		images[i] = r.fromRow()
	}
	return images
}

// imageRow is a row of images. It is read and written as JSON, so that any number of images needs one statement with one
// parameter. NULL is the zero value.
type imageRow struct {
	imageFields
	Renditions []renditionRow `json:"renditions"`
}

// imageFields is [catalog.Image] with the names of the columns. The two types are converted to each other, which does not
// compile if their fields differ. A new column also needs an entry in imageColumns; without it no statement writes the
// column.
type imageFields struct {
	ID        catalog.ImageID   `json:"id"`
	ProductID catalog.ProductID `json:"product_id"`
	Position  int               `json:"position"`
	SourceURL string            `json:"source_url"`

	Status      catalog.Status      `json:"status"`
	Attempts    int                 `json:"attempts"`
	ErrorCode   media.Code          `json:"error_code"`
	ErrorDetail string              `json:"error_detail"`
	Width       int                 `json:"width"`
	Height      int                 `json:"height"`
	Placeholder string              `json:"placeholder"`
	Renditions  []catalog.Rendition `json:"-"` // in imageRow.Renditions
	Dropped     []media.Dropped     `json:"-"` // in imageRow.Renditions

	ReprocessError media.Code `json:"reprocess_error"`
	SourceSHA256   string     `json:"source_sha256"`
	SourceBytes    int64      `json:"source_bytes"`

	FencingToken int64     `json:"fencing_token"`
	Prefix       string    `json:"prefix"`
	PipelineHash string    `json:"pipeline_hash"`
	RequestedAt  time.Time `json:"requested_at,omitzero"`
	OutputHash   string    `json:"output_hash"`
	OriginalKey  string    `json:"original_key"`
	BackfillID   int64     `json:"backfill_id"`

	JobState           catalog.JobState    `json:"-"` // in jobRow, as the rest
	JobID              string              `json:"-"`
	Class              catalog.Class       `json:"-"`
	Host               string              `json:"-"`
	Traceparent        string              `json:"-"`
	UnreportedAttempts int                 `json:"-"`
	PoisonSHA256       string              `json:"-"`
	NotBefore          time.Time           `json:"-"`
	ReleasedAt         time.Time           `json:"-"`
	DueAt              time.Time           `json:"-"`
	DeferredSince      time.Time           `json:"-"`
	Backfill           catalog.BackfillJob `json:"-"`
}

// imageColumns are the columns that statements write. The list is explicit, so that a program does not erase a column that a
// newer release has added.
const imageColumns = ` position, source_url, status, attempts, error_code, error_detail, width, height, placeholder,
    renditions, fencing_token, prefix, reprocess_error, source_sha256, source_bytes, pipeline_hash, requested_at,
    output_hash, original_key, backfill_id `

// renditionRow is one element of the column renditions. The names of its fields are stored, so fields may be added, but
// not renamed.
type renditionRow struct {
	renditionFields

	// Dropped has the dropped files of the whole image. Only the first element has it. The files are not in a column of
	// their own, because a program of an older release would not know that column, and would leave it unchanged when it
	// replaces the renditions.
	Dropped []droppedRow `json:"dropped,omitempty"`
}

type renditionFields struct {
	Name    string          `json:"name"`
	Format  pipeline.Format `json:"format"`
	Width   int             `json:"width"`
	Height  int             `json:"height"`
	Bytes   int64           `json:"bytes"`
	Score   float64         `json:"score,omitempty"`
	Lowered int             `json:"lowered,omitempty"`
	Key     string          `json:"key"`
	Default bool            `json:"default"`
}

type droppedRow struct {
	Name   string          `json:"name"`
	Format pipeline.Format `json:"format"`
	Reason media.Reason    `json:"reason"`
}

// fromRow returns the image without a job.
func (r imageRow) fromRow() catalog.Image {
	img := catalog.Image(r.imageFields)
	img.RequestedAt, img.JobState = img.RequestedAt.UTC(), catalog.Idle
	for _, x := range r.Renditions {
		img.Renditions = append(img.Renditions, catalog.Rendition(x.renditionFields))
		for _, d := range x.Dropped {
			img.Dropped = append(img.Dropped, media.Dropped(d))
		}
	}
	return img
}

// toImageRow copies everything but the job, so that later changes of img do not change the row. Times are cut to
// microseconds, the precision of the database.
func toImageRow(img catalog.Image) imageRow {
	img.RequestedAt = toTime(img.RequestedAt)
	r := imageRow{imageFields: imageFields(withoutJob(img)), Renditions: make([]renditionRow, len(img.Renditions))}
	r.imageFields.Renditions, r.Dropped = nil, nil
	for i, x := range img.Renditions {
		r.Renditions[i].renditionFields = renditionFields(x)
		if i == 0 {
			for _, d := range img.Dropped {
				r.Renditions[0].Dropped = append(r.Renditions[0].Dropped, droppedRow(d))
			}
		}
	}
	return r
}

func toTime(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// toImagesAndJobs returns the images as the database would return them.
func toImagesAndJobs(p catalog.Product) []imageAndJob {
	rows := make([]imageAndJob, len(p.Images))
	for i, img := range p.Images {
		rows[i] = imageAndJob{Image: toImageRow(img), Job: toJobRow(p, img)}
	}
	return rows
}

// outboxRow is a message, in the form that insertOutbox reads.
type outboxRow struct {
	EventID string            `json:"event_id"`
	Topic   string            `json:"topic"`
	Key     string            `json:"key"`
	Type    string            `json:"type"`
	Payload string            `json:"payload"` // JSON as a string, so that its bytes are preserved
	Headers map[string]string `json:"headers"`
	Delay   int64             `json:"delay"` // microseconds
}

func toOutboxRows(outgoing []catalog.Outgoing) asJSON[[]outboxRow] {
	rows := make([]outboxRow, len(outgoing))
	for i, o := range outgoing {
		m := o.Message
		rows[i] = outboxRow{
			EventID: m.ID, Topic: m.Topic, Key: m.Key, Type: m.Type,
			Payload: string(m.Body), Headers: m.Headers(), Delay: o.Delay.Microseconds(),
		}
	}
	return asJSON[[]outboxRow]{rows}
}

// deletionRow is a scheduled deletion, in the form that the statements read.
type deletionRow struct {
	Prefix  string `json:"prefix"`
	ImageID int64  `json:"image_id"`
	Delay   int64  `json:"delay"` // microseconds from now
}

func toDeletionRows(deletions []catalog.ScheduledDeletion) asJSON[[]deletionRow] {
	rows := make([]deletionRow, len(deletions))
	for i, d := range deletions {
		rows[i] = deletionRow{Prefix: d.Prefix, ImageID: int64(d.ImageID), Delay: d.Delay.Microseconds()}
	}
	return asJSON[[]deletionRow]{rows}
}
