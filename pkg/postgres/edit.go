package postgres

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"gorm.io/gorm"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/failpoint"
)

const lockProduct = `SELECT` + productColumns + ` FROM products p WHERE p.id = $1 FOR UPDATE OF p`

// selectImages runs after the lock is held, with a snapshot of its own. Its clock is the edit's now: the transaction's
// now() and a clock in lockProduct would both be from before the wait for the lock.
const selectImages = `
SELECT clock_timestamp() AS now, coalesce(json_agg(i ORDER BY i.position), '[]') AS images
FROM images i WHERE i.product_id = $1`

const updateProduct = `
UPDATE products SET product_name = $2, product_description = $3, product_price = $4, product_images = $5,
    compressed_product_images = $6, version = $7, revision = $8, updated_at = $9,
    deleted_at = CASE WHEN $10::boolean THEN $11::timestamptz END
WHERE id = $1`

// deleteImages removes pictures that still stand as they were read; the caller notices by the count if one does not.
const deleteImages = `
DELETE FROM images i USING json_to_recordset($2) AS n (id bigint, held_fence bigint, held_work text)
WHERE i.product_id = $1 AND i.id = n.id AND i.fence = n.held_fence AND i.work = n.held_work`

// liftImages takes pictures out of everybody's way before they change places: no two may share one at any moment.
const liftImages = `UPDATE images SET position = position + 1000000 WHERE product_id = $1 AND id = ANY($2)`

// updateImages writes all changed pictures at once. A picture that has another fence or work than was read is not
// written, and the caller notices by the count.
const updateImages = `
UPDATE images i SET position = n.position, status = n.status, work = n.work, ticket = nullif(n.ticket, '')::uuid,
    fence = n.fence, begins = n.begins, attempts = n.attempts, prefix = n.prefix, error_code = n.error_code,
    error_detail = n.error_detail, remake_error = n.remake_error, source_sha256 = n.source_sha256,
    source_bytes = n.source_bytes, killer_sha256 = n.killer_sha256,
    width = n.width, height = n.height, pipeline_hash = n.pipeline_hash,
    renditions = n.renditions, placeholder = n.placeholder, requested_at = n.requested_at, due_at = n.due_at,
    updated_at = $3
FROM json_to_recordset($2) AS n (id bigint, held_fence bigint, held_work text, position integer, status text, work text,
    ticket text, fence bigint, begins integer, attempts integer, prefix text, error_code text, error_detail text,
    remake_error text, source_sha256 text, source_bytes bigint, killer_sha256 text,
    width integer, height integer, pipeline_hash text,
    renditions jsonb, placeholder text, requested_at timestamptz, due_at timestamptz)
WHERE i.product_id = $1 AND i.id = n.id AND i.fence = n.held_fence AND i.work = n.held_work`

// deleteIntents waits for a compensator that holds the row, and then sees that it is doomed.
const deleteIntents = `DELETE FROM intents WHERE prefix = ANY($1) AND doomed_at IS NULL`

// insertIntents keeps the later of two times, so that nothing goes before anybody's grace is over. What is doomed stays so.
const insertIntents = `
INSERT INTO intents (prefix, image_id, due_at)
SELECT prefix, image_id, statement_timestamp() + due * interval '1 microsecond'
FROM json_to_recordset($1) AS n (prefix text, image_id bigint, due bigint)
ON CONFLICT (prefix) DO UPDATE SET due_at = greatest(intents.due_at, excluded.due_at) WHERE intents.doomed_at IS NULL`

// Edit implements catalog.Store.
func (s *Store) Edit(
	ctx context.Context, id catalog.ProductID, fn func(*catalog.Product, time.Time) (catalog.Change, error),
) (catalog.Product, error) {
	var result catalog.Product
	err := s.db.transact(ctx, "edit", func(tx *gorm.DB) error {
		held, err := lockForEdit(tx, id)
		if err != nil {
			return err
		}
		p := held.product.fromRow()
		change, err := fn(&p, held.now)
		if err != nil {
			return asIs{err}
		}
		defer failpoint.Hit(failpoint.EditWritten)
		result, err = held.write(tx, p, change)
		return err
	})
	if err != nil {
		return catalog.Product{}, err
	}
	return result, nil
}

// heldProduct is a locked product as it was read.
type heldProduct struct {
	product productRow
	now     time.Time
}

func lockForEdit(tx *gorm.DB, id catalog.ProductID) (heldProduct, error) {
	var held heldProduct
	found := tx.Raw(lockProduct, int64(id)).Find(&held.product)
	if found.Error != nil {
		return held, fmt.Errorf("lock product: %w", found.Error)
	}
	if found.RowsAffected == 0 {
		return held, noProduct(id)
	}
	var pictures struct {
		Now    time.Time
		Images asJSON[[]imageRow]
	}
	if err := tx.Raw(selectImages, int64(id)).Find(&pictures).Error; err != nil {
		return held, fmt.Errorf("load images: %w", err)
	}
	held.product.Images, held.now = pictures.Images, pictures.Now.UTC()
	return held, nil
}

// write writes what differs between the product as it was read and p, then the change, in the order of locks: product,
// picture, intent.
func (h heldProduct) write(tx *gorm.DB, p catalog.Product, change catalog.Change) (catalog.Product, error) {
	was := h.product.fromRow()
	pictures, err := h.compare(p)
	if err != nil {
		return catalog.Product{}, err
	}
	if p.Version != was.Version {
		p.UpdatedAt = h.now
	}
	same := sameProduct(was, p)
	adds := len(change.Outbox)+len(change.Intents)+len(change.Adopt) > 0 || change.Announce != nil
	if same && pictures.none() && !adds {
		return settled(p), errNothing
	}
	if !same {
		if err := h.updateProduct(tx, was, p); err != nil {
			return catalog.Product{}, err
		}
	}
	if err := h.writeImages(tx, &p, pictures); err != nil {
		return catalog.Product{}, err
	}
	if err := adopt(tx, change.Adopt); err != nil {
		return catalog.Product{}, err
	}
	if err := intend(tx, change.Intents); err != nil {
		return catalog.Product{}, err
	}
	outgoing := change.Outbox
	if change.Announce != nil {
		outgoing = append(slices.Clip(outgoing), change.Announce(p)...)
	}
	return settled(p), send(tx, outgoing)
}

// settled returns p as reading it back would: the caller's slices copied, times as precise as the database's.
func settled(p catalog.Product) catalog.Product {
	if p.Deleted {
		return catalog.Product{ID: p.ID, Version: p.Version, Deleted: true}
	}
	p.ImageURLs, p.Compressed = some(p.ImageURLs), some(p.Compressed)
	p.Images = imagesFromRows(toImageRows(p.Images))
	return p
}

// sameProduct compares what Edit may change outside the pictures.
func sameProduct(a, b catalog.Product) bool {
	return a.Name == b.Name && a.Description == b.Description && a.Price.Equal(b.Price) &&
		slices.Equal(a.ImageURLs, b.ImageURLs) && slices.Equal(a.Compressed, b.Compressed) &&
		a.Version == b.Version && a.Revision == b.Revision && a.Deleted == b.Deleted
}

func (h heldProduct) updateProduct(tx *gorm.DB, was, p catalog.Product) error {
	switch {
	case was.Deleted:
		return errors.New("edit product: a deleted product cannot be changed")
	case p.Version < was.Version:
		return fmt.Errorf("edit product: version %d is older than %d", p.Version, was.Version)
	case p.Revision < was.Revision:
		return fmt.Errorf("edit product: revision %d is older than %d", p.Revision, was.Revision)
	}
	err := tx.Exec(updateProduct, int64(was.ID), p.Name, p.Description, p.Price, some(p.ImageURLs), some(p.Compressed),
		p.Version, p.Revision, p.UpdatedAt, p.Deleted, h.now).Error
	if err != nil {
		return fmt.Errorf("update product: %w", err)
	}
	return nil
}

// changedImage is a picture to be written, with what must still stand in its row.
type changedImage struct {
	imageRow
	HeldFence int64  `json:"held_fence"`
	HeldWork  string `json:"held_work"`
}

// difference is what has become of a product's pictures: rows to remove and to write, and which of Images are new.
type difference struct {
	dropped, changed []changedImage
	moved            []int64 // ids of those changed that have another place now
	added            []int
}

func (d difference) none() bool { return len(d.dropped)+len(d.changed)+len(d.added) == 0 }

// compare says how the pictures of p differ from those that were read. A picture's source is not an edit's to change.
func (h heldProduct) compare(p catalog.Product) (difference, error) {
	var d difference
	if h.product.Deleted {
		return d, nil
	}
	was := make(map[catalog.ImageID]catalog.Image, len(p.Images))
	for _, img := range imagesFromRows(h.product.Images.V) {
		was[img.ID] = img
	}
	for i, img := range p.Images {
		if img.Position != i {
			return d, fmt.Errorf("edit product: image %d stands at %d and says %d", img.ID, i, img.Position)
		}
		if img.ID == 0 {
			d.added = append(d.added, i)
			continue
		}
		old, known := was[img.ID]
		delete(was, img.ID) // it may not come twice
		if !known || old.SourceURL != img.SourceURL || old.ProductID != img.ProductID {
			return d, fmt.Errorf("edit product: image %d is not one of its own, or of another source", img.ID)
		}
		if a, b := toImageRow(old), toImageRow(img); !reflect.DeepEqual(a, b) {
			d.changed = append(d.changed, changedImage{imageRow: b, HeldFence: a.Fence, HeldWork: a.Work})
			if a.Position != b.Position {
				d.moved = append(d.moved, b.ID)
			}
		}
	}
	for _, img := range was {
		r := toImageRow(img)
		d.dropped = append(d.dropped, changedImage{imageRow: r, HeldFence: r.Fence, HeldWork: r.Work})
	}
	return d, nil
}

// writeImages writes the difference, and gives the new pictures of p their ids.
func (h heldProduct) writeImages(tx *gorm.DB, p *catalog.Product, d difference) error {
	if err := h.onImages(tx, "delete", d.dropped, deleteImages); err != nil {
		return err
	}
	if len(d.moved) > 0 {
		if err := tx.Exec(liftImages, h.product.ID, d.moved).Error; err != nil {
			return fmt.Errorf("move images: %w", err)
		}
	}
	if err := h.onImages(tx, "update", d.changed, updateImages, h.now); err != nil {
		return err
	}
	if len(d.added) == 0 {
		return nil
	}
	added := make([]catalog.Image, len(d.added))
	for i, at := range d.added {
		added[i] = p.Images[at]
	}
	made, err := insertImageRows(tx, p.ID, added, h.now)
	if err != nil {
		return err
	}
	p.Images = slices.Clone(p.Images) // the caller's stays as it was
	for i, at := range d.added {
		p.Images[at] = made[i]
	}
	return nil
}

// onImages runs a statement on rows that must all still stand as they were read.
func (h heldProduct) onImages(tx *gorm.DB, verb string, rows []changedImage, statement string, args ...any) error {
	if len(rows) == 0 {
		return nil
	}
	done := tx.Exec(statement, append([]any{h.product.ID, asJSON[[]changedImage]{rows}}, args...)...)
	if done.Error != nil {
		return fmt.Errorf("%s images: %w", verb, done.Error)
	}
	if done.RowsAffected != int64(len(rows)) { // someone writes images without holding the product
		return fmt.Errorf("%s images: %d of %d still stood as they were read", verb, done.RowsAffected, len(rows))
	}
	return nil
}

// adopt removes the intents of prefixes that now belong to a picture: all of them undoomed, or the edit is undone.
func adopt(tx *gorm.DB, prefixes []string) error {
	if len(prefixes) == 0 {
		return nil
	}
	deleted := tx.Exec(deleteIntents, prefixes)
	if deleted.Error != nil {
		return fmt.Errorf("adopt objects: %w", deleted.Error)
	}
	if deleted.RowsAffected != int64(len(prefixes)) {
		return fmt.Errorf("adopt objects: %w", catalog.ErrDoomed)
	}
	return nil
}

func intend(tx *gorm.DB, intents []catalog.Intent) error {
	if len(intents) == 0 {
		return nil
	}
	if err := tx.Exec(insertIntents, asJSON[[]intentRow]{toIntentRows(intents)}).Error; err != nil {
		return fmt.Errorf("insert intents: %w", err)
	}
	return nil
}
