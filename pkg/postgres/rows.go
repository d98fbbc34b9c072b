package postgres

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/media"
	"vitrine.io/pkg/pipeline"
)

// asJSON is a column that the server sends, or takes, as JSON.
type asJSON[T any] struct{ V T }

// Scan implements sql.Scanner. NULL is the zero value.
func (c *asJSON[T]) Scan(src any) error {
	var zero T
	c.V = zero
	var text []byte
	switch src := src.(type) {
	case nil:
		return nil
	case string:
		text = []byte(src)
	case []byte:
		text = src
	default:
		return fmt.Errorf("column is %T, not JSON", src)
	}
	if err := json.Unmarshal(text, &c.V); err != nil {
		return fmt.Errorf("read JSON column: %w", err)
	}
	return nil
}

// Value implements driver.Valuer, as a text.
func (c asJSON[T]) Value() (driver.Value, error) {
	text, err := json.Marshal(c.V)
	if err != nil {
		return nil, fmt.Errorf("write JSON column: %w", err)
	}
	return string(text), nil
}

type userRow struct {
	ID        int64
	Name      string
	Email     string
	CreatedAt time.Time
}

func (r userRow) fromRow() catalog.User {
	return catalog.User{ID: catalog.UserID(r.ID), Name: r.Name, Email: r.Email, CreatedAt: r.CreatedAt.UTC()}
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
	Images                  asJSON[[]imageRow]
}

// fromRow returns the product. Of a deleted one, only what still means something.
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
		Images:      imagesFromRows(r.Images.V),
		Version:     r.Version,
		Revision:    r.Revision,
		CreatedAt:   r.CreatedAt.UTC(),
		UpdatedAt:   r.UpdatedAt.UTC(),
	}
}

// imageRow is a row of images. Reading and writing, it travels as JSON: any number of pictures is one statement with one
// parameter. NULL reads as the zero value, and is written from it where the column may be NULL.
type imageRow struct {
	ID           int64          `json:"id"`
	ProductID    int64          `json:"product_id"`
	Position     int            `json:"position"`
	SourceURL    string         `json:"source_url"`
	Status       string         `json:"status"`
	Work         string         `json:"work"`
	Ticket       string         `json:"ticket"`
	Fence        int64          `json:"fence"`
	Begins       int            `json:"begins"`
	Attempts     int            `json:"attempts"`
	Prefix       string         `json:"prefix"`
	ErrorCode    string         `json:"error_code"`
	ErrorDetail  string         `json:"error_detail"`
	RemakeError  string         `json:"remake_error"`
	SourceSHA256 string         `json:"source_sha256"`
	SourceBytes  int64          `json:"source_bytes"`
	KillerSHA256 string         `json:"killer_sha256"`
	Width        int            `json:"width"`
	Height       int            `json:"height"`
	PipelineHash string         `json:"pipeline_hash"`
	Renditions   []renditionRow `json:"renditions"`
	Placeholder  string         `json:"placeholder"`
	RequestedAt  time.Time      `json:"requested_at,omitzero"`
	DueAt        time.Time      `json:"due_at,omitzero"`
}

// renditionRow is one element of the column renditions. It is stored: names may be added, never changed.
type renditionRow struct {
	Name    string  `json:"name"`
	Format  string  `json:"format"`
	Width   int     `json:"width"`
	Height  int     `json:"height"`
	Bytes   int64   `json:"bytes"`
	Score   float64 `json:"score,omitempty"`
	Lowered int     `json:"lowered,omitempty"`
	Key     string  `json:"key"`
	Default bool    `json:"default"`

	// Of the whole picture, in its first element only. What was dropped has to change with what stayed, and a program of an
	// older release, which writes this column and knows no other, has to take it away.
	Dropped []droppedRow `json:"dropped,omitempty"`
}

type droppedRow struct {
	Name   string `json:"name"`
	Format string `json:"format"`
	Reason string `json:"reason"`
}

func (r imageRow) fromRow() catalog.Image {
	img := catalog.Image{
		ID: catalog.ImageID(r.ID), ProductID: catalog.ProductID(r.ProductID),
		Position: r.Position, SourceURL: r.SourceURL,
		Status: catalog.Status(r.Status), Attempts: r.Attempts,
		ErrorCode: media.Code(r.ErrorCode), ErrorDetail: r.ErrorDetail,
		Width: r.Width, Height: r.Height, Placeholder: r.Placeholder,
		Work: catalog.Work(r.Work), Ticket: r.Ticket, Fence: r.Fence, Begins: r.Begins, Prefix: r.Prefix,
		RemakeError:  media.Code(r.RemakeError),
		SourceSHA256: r.SourceSHA256, SourceBytes: r.SourceBytes, KillerSHA256: r.KillerSHA256,
		PipelineHash: r.PipelineHash, RequestedAt: r.RequestedAt.UTC(), DueAt: r.DueAt.UTC(),
	}
	for _, x := range r.Renditions {
		img.Renditions = append(img.Renditions, catalog.Rendition{
			Name: x.Name, Format: pipeline.Format(x.Format), Width: x.Width, Height: x.Height,
			Bytes: x.Bytes, Score: x.Score, Lowered: x.Lowered, Key: x.Key, Default: x.Default,
		})
		for _, d := range x.Dropped {
			img.Dropped = append(img.Dropped, media.Dropped{
				Name: d.Name, Format: pipeline.Format(d.Format), Reason: media.Reason(d.Reason),
			})
		}
	}
	return img
}

// toImageRow copies everything, so that what becomes of img later does not change the row. Times are cut to
// microseconds, which is all that the database keeps.
func toImageRow(img catalog.Image) imageRow {
	r := imageRow{
		ID: int64(img.ID), ProductID: int64(img.ProductID),
		Position: img.Position, SourceURL: img.SourceURL,
		Status: string(img.Status), Work: string(img.Work),
		Ticket: img.Ticket, Fence: img.Fence, Begins: img.Begins, Attempts: img.Attempts, Prefix: img.Prefix,
		ErrorCode: string(img.ErrorCode), ErrorDetail: img.ErrorDetail, RemakeError: string(img.RemakeError),
		SourceSHA256: img.SourceSHA256, SourceBytes: img.SourceBytes, KillerSHA256: img.KillerSHA256,
		Width: img.Width, Height: img.Height,
		PipelineHash: img.PipelineHash, Placeholder: img.Placeholder,
		Renditions:  make([]renditionRow, 0, len(img.Renditions)),
		RequestedAt: toTime(img.RequestedAt), DueAt: toTime(img.DueAt),
	}
	for _, x := range img.Renditions {
		r.Renditions = append(r.Renditions, renditionRow{
			Name: x.Name, Format: string(x.Format), Width: x.Width, Height: x.Height,
			Bytes: x.Bytes, Score: x.Score, Lowered: x.Lowered, Key: x.Key, Default: x.Default,
		})
	}
	if len(r.Renditions) > 0 {
		for _, d := range img.Dropped {
			r.Renditions[0].Dropped = append(r.Renditions[0].Dropped,
				droppedRow{Name: d.Name, Format: string(d.Format), Reason: string(d.Reason)})
		}
	}
	return r
}

func toTime(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

func toImageRows(images []catalog.Image) []imageRow {
	rows := make([]imageRow, len(images))
	for i, img := range images {
		rows[i] = toImageRow(img)
	}
	return rows
}

func imagesFromRows(rows []imageRow) []catalog.Image {
	images := make([]catalog.Image, len(rows))
	for i, r := range rows {
		images[i] = r.fromRow()
	}
	return images
}

// outboxRow is a message on its way into the outbox.
type outboxRow struct {
	EventID string            `json:"event_id"`
	Topic   string            `json:"topic"`
	Key     string            `json:"key"`
	Type    string            `json:"type"`
	Payload string            `json:"payload"` // JSON inside a JSON text: it must come out byte for byte
	Headers map[string]string `json:"headers"`
	Delay   int64             `json:"delay"` // microseconds
}

func toOutboxRows(outgoing []catalog.Outgoing) []outboxRow {
	rows := make([]outboxRow, len(outgoing))
	for i, o := range outgoing {
		m := o.Message
		rows[i] = outboxRow{
			EventID: m.ID, Topic: m.Topic, Key: m.Key, Type: m.Type,
			Payload: string(m.Body), Headers: m.Headers(), Delay: o.Delay.Microseconds(),
		}
	}
	return rows
}

// intentRow is an intent on its way in.
type intentRow struct {
	Prefix  string `json:"prefix"`
	ImageID int64  `json:"image_id"`
	Due     int64  `json:"due"` // microseconds from now
}

func toIntentRows(intents []catalog.Intent) []intentRow {
	rows := make([]intentRow, len(intents))
	for i, in := range intents {
		rows[i] = intentRow{Prefix: in.Prefix, ImageID: int64(in.ImageID), Due: in.Due.Microseconds()}
	}
	return rows
}
