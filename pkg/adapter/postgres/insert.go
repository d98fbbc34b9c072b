package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
)

// writtenProduct are the columns of productValues, in its order.
const writtenProduct = ` product_name, product_description, product_price, product_images, compressed_product_images,
    version, revision`

// productValues returns the values of a product that Insert and Edit write. Its images, user and times are not included.
func productValues(p catalog.Product) []any {
	return []any{p.Name, p.Description, p.Price, nonNil(p.ImageURLs), nonNil(p.Compressed), p.Version, p.Revision}
}

const insertProduct = `
INSERT INTO products (user_id,` + writtenProduct + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
RETURNING id, created_at`

// insertImages returns each id with its position, because SQL does not define the order of RETURNING.
const insertImages = `
INSERT INTO images (product_id,` + imageColumns + `)
SELECT $1,` + imageColumns + `FROM json_populate_recordset(NULL::images, $2)
RETURNING id, position`

// insertOutbox counts the delay from the start of the statement, because the transaction may have waited for a lock
// before. The rescuer sends a job again under the same event id. If the outbox has a parked message with this id, the
// message becomes due again, and its tries start at zero. If it has a message that is not parked, nothing changes. ON
// CONFLICT DO UPDATE could do both, but it would lock the row first, and so wait for a batch of the relay that publishes
// the message.
const insertOutbox = `
WITH n AS (
    SELECT event_id, topic, key, type, payload::json, headers,
        statement_timestamp() + delay * interval '1 microsecond' AS available_at
    FROM json_to_recordset($1) AS j (event_id uuid, topic text, key text, type text, payload text, headers jsonb,
        delay bigint)
), unparked AS (
    UPDATE outbox SET parked_at = NULL, tries = 0, available_at = n.available_at
    FROM n WHERE outbox.event_id = n.event_id AND outbox.parked_at IS NOT NULL
)
INSERT INTO outbox (event_id, topic, key, type, payload, headers, available_at)
SELECT event_id, topic, key, type, payload, headers, available_at FROM n
ON CONFLICT (event_id) DO NOTHING`

// Insert implements catalog.Store.
func (s *Store) Insert(
	ctx context.Context, p catalog.Product, announce func(catalog.Product) []catalog.Outgoing,
) (catalog.Product, error) {
	err := s.db.transact(ctx, "insert", func(tx *gorm.DB) error {
		return s.insert(tx, &p, announce)
	})
	if err != nil {
		return catalog.Product{}, err
	}
	return p, nil
}

func (s *Store) insert(tx *gorm.DB, p *catalog.Product, announce func(catalog.Product) []catalog.Outgoing) error {
	if err := insertProductRow(tx, p); err != nil {
		return err
	}
	images, err := insertImageRows(tx, p.ID, p.Images, p.CreatedAt)
	if err != nil {
		return err
	}
	p.Images = images
	var d jobDifference
	for i, img := range p.Images {
		d.compare(i, img.ID, nil, toJobRow(*p, img))
	}
	released, err := s.writeJobs(tx, p, d)
	if err != nil {
		return err
	}
	defer failpoint.Hit(failpoint.InsertWritten)
	return send(tx, append(slices.Clip(announce(*p)), released...))
}

func insertProductRow(tx *gorm.DB, p *catalog.Product) error {
	var row struct {
		ID        int64
		CreatedAt time.Time
	}
	p.ImageURLs, p.Compressed = nonNil(p.ImageURLs), nonNil(p.Compressed)
	err := tx.Raw(insertProduct, append([]any{int64(p.UserID)}, productValues(*p)...)...).Find(&row).Error
	if violates(err, foreignKeyViolation, "products_user_id_fkey") {
		return fault.InvalidFields([]fault.Field{
			{Path: "user_id", Code: "unknown", Detail: "there is no such user"},
		})
	}
	if err != nil {
		return err
	}
	p.ID, p.CreatedAt = catalog.ProductID(row.ID), row.CreatedAt.UTC()
	p.UpdatedAt = p.CreatedAt
	return nil
}

// insertImageRows adds images to a product and returns them as the database would return them, with the jobs that are not
// written yet. at is the time of their requests.
func insertImageRows(tx *gorm.DB, id catalog.ProductID, images []catalog.Image, at time.Time) ([]catalog.Image, error) {
	images = slices.Clone(images)
	rows := make([]imageRow, len(images))
	for i := range images {
		img := &images[i]
		img.ProductID, img.RequestedAt = id, time.Time{}
		if img.JobState == catalog.Queued {
			img.RequestedAt, img.NotBefore, img.DueAt = at, at, at
		}
		rows[i] = toImageRow(*img)
	}
	if len(rows) == 0 {
		return images, nil
	}
	var inserted []struct {
		ID       catalog.ImageID
		Position int
	}
	if err := tx.Raw(insertImages, int64(id), asJSON[[]imageRow]{rows}).Find(&inserted).Error; err != nil {
		return nil, fmt.Errorf("insert images: %w", err)
	}
	ids := make(map[int]catalog.ImageID, len(inserted))
	for _, row := range inserted {
		ids[row.Position] = row.ID
	}
	for i := range images {
		images[i].ID = ids[images[i].Position]
	}
	return images, nil
}

// send inserts messages into the outbox, in one statement.
func send(tx *gorm.DB, outgoing []catalog.Outgoing) error {
	return execRows(tx, "insert outbox", len(outgoing), nil, insertOutbox, toOutboxRows(outgoing))
}

// nonNil returns a copy of list that is never nil, because the driver writes a nil slice as NULL.
func nonNil(list []string) []string { return append([]string{}, list...) }
