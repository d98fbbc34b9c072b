package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"gorm.io/gorm"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
)

const lockProduct = `SELECT` + productColumns + ` FROM products p WHERE p.id = $1 FOR UPDATE OF p`

// selectImages runs after the lock is acquired, with a snapshot of its own. It returns the time of the edit. now(), or a
// clock in lockProduct, would return a time before the wait for the lock.
const selectImages = `
SELECT clock_timestamp() AS now,
    coalesce(json_agg(json_build_object('image', i, 'job', j) ORDER BY i.position), '[]') AS images
FROM images i LEFT JOIN image_jobs j ON j.image_id = i.id WHERE i.product_id = $1`

const updateProduct = `
UPDATE products SET (` + writtenProduct + `, updated_at, deleted_at) =
    ($2, $3, $4, $5, $6, $7, $8, $9, CASE WHEN $10::boolean THEN $11::timestamptz END)
WHERE id = $1`

const deleteImages = `DELETE FROM images WHERE product_id = $1 AND id = ANY($2)`

// clearPositions moves images to unused positions before they change places, because positions are unique at any moment.
const clearPositions = `UPDATE images SET position = position + 1000000 WHERE product_id = $1 AND id = ANY($2)`

// updateImages writes all changed images. Within the inner SELECT, imageColumns are the columns of the new row.
const updateImages = `
UPDATE images i SET updated_at = $3, (` + imageColumns + `) = (SELECT` + imageColumns + `FROM (SELECT n.*) changed)
FROM json_populate_recordset(NULL::images, $2) n WHERE i.product_id = $1 AND i.id = n.id`

// deleteUnstarted waits for a garbage collector that has locked the row, and then sees that the deletion has started.
const deleteUnstarted = `DELETE FROM scheduled_deletions WHERE prefix = ANY($1) AND started_at IS NULL`

// insertScheduledDeletions keeps the later of two times, so that objects stay until every grace period has passed. A
// deletion that has started stays started.
const insertScheduledDeletions = `
INSERT INTO scheduled_deletions (prefix, image_id, due_at)
SELECT prefix, image_id, statement_timestamp() + delay * interval '1 microsecond'
FROM json_to_recordset($1) AS n (prefix text, image_id bigint, delay bigint)
ON CONFLICT (prefix) DO UPDATE SET due_at = greatest(scheduled_deletions.due_at, excluded.due_at)
WHERE scheduled_deletions.started_at IS NULL`

// Edit implements catalog.Store.
func (s *Store) Edit(
	ctx context.Context, id catalog.ProductID, fn func(*catalog.Product, time.Time) (catalog.Change, error),
) (catalog.Product, error) {
	unlock, err := s.lockEdits(ctx, id)
	if err != nil {
		return catalog.Product{}, err
	}
	defer unlock()
	var p catalog.Product
	err = retryReleased(func() (err error) {
		p, err = s.edit(ctx, id, fn)
		return err
	})
	return p, err
}

// retryReleased repeats an edit that the scheduler has overtaken.
func retryReleased(edit func() error) error {
	for n := 1; ; n++ {
		if err := edit(); !errors.Is(err, errJobReleased) || n == maxEdits {
			return err
		}
	}
}

func (s *Store) edit(
	ctx context.Context, id catalog.ProductID, fn func(*catalog.Product, time.Time) (catalog.Change, error),
) (catalog.Product, error) {
	var result catalog.Product
	err := s.db.transact(ctx, "edit", func(tx *gorm.DB) (err error) {
		result, err = s.editTx(tx, id, fn)
		return err
	})
	if err != nil {
		return catalog.Product{}, err
	}
	return result, nil
}

// editTx is Edit in a transaction. It returns errNothing, with the product, if fn changes nothing.
func (s *Store) editTx(tx *gorm.DB, id catalog.ProductID, fn func(*catalog.Product, time.Time) (catalog.Change, error),
) (catalog.Product, error) {
	locked, err := lockForEdit(tx, id)
	if err != nil {
		return catalog.Product{}, err
	}
	p := locked.product.fromRow()
	change, err := fn(&p, locked.now)
	if err != nil {
		return catalog.Product{}, callerError{err}
	}
	defer failpoint.Hit(failpoint.EditWritten)
	return s.write(tx, locked, p, change)
}

// lockEdits waits until this process has no other Edit of the product, for at most the time of one call. Otherwise the edits
// of one product could take all connections, and wait on them for the lock of its row.
func (s *Store) lockEdits(ctx context.Context, id catalog.ProductID) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, s.db.cfg.Timeout)
	defer cancel()
	leave, ok := s.edits.queued.TryAcquire(id, s.db.cfg.EditQueue)
	if !ok {
		return nil, fault.New(fault.Unavailable, "product_busy", "too many changes of this product are in progress")
	}
	done, ok := s.edits.running.Acquire(ctx, id, 1)
	if !ok {
		leave()
		return nil, translate(ctx.Err())
	}
	return func() { done(); leave() }, nil
}

// lockedProduct is a product as it was read under its lock.
type lockedProduct struct {
	product productRow
	now     time.Time
}

func lockForEdit(tx *gorm.DB, id catalog.ProductID) (lockedProduct, error) {
	var locked lockedProduct
	found := tx.Raw(lockProduct, int64(id)).Find(&locked.product)
	if found.Error != nil {
		return locked, fmt.Errorf("lock product: %w", found.Error)
	}
	if found.RowsAffected == 0 {
		return locked, noProduct(id)
	}
	var images struct {
		Now    time.Time
		Images asJSON[[]imageAndJob]
	}
	if err := tx.Raw(selectImages, int64(id)).Find(&images).Error; err != nil {
		return locked, fmt.Errorf("load images: %w", err)
	}
	locked.product.Images, locked.now = images.Images, images.Now.UTC()
	return locked, nil
}

// write writes the difference between the product as it was read and p, then the change, in the order of locks: product,
// image, job, scheduled deletion.
func (s *Store) write(tx *gorm.DB, h lockedProduct, p catalog.Product, change catalog.Change) (catalog.Product, error) {
	old := h.product.fromRow()
	images, err := h.compare(p)
	if err != nil {
		return catalog.Product{}, err
	}
	if p.Version != old.Version {
		p.UpdatedAt = h.now
	}
	same := sameProduct(old, p)
	hasChange := len(change.Outbox)+len(change.Deletions)+len(change.CancelDeletions)+len(change.Backfill) > 0
	if same && images.none() && !hasChange {
		return normalized(p), errNothing
	}
	if !same {
		if err := h.updateProduct(tx, old, p); err != nil {
			return catalog.Product{}, err
		}
	}
	if err := h.writeImages(tx, &p, images); err != nil {
		return catalog.Product{}, err
	}
	released, err := s.writeJobs(tx, &p, images.jobs)
	if err != nil {
		return catalog.Product{}, err
	}
	if err := execRows(tx, "cancel deletions", len(change.CancelDeletions), catalog.ErrDeletionStarted,
		deleteUnstarted, change.CancelDeletions); err != nil {
		return catalog.Product{}, err
	}
	if err := execRows(tx, "schedule deletions", len(change.Deletions), nil,
		insertScheduledDeletions, toDeletionRows(change.Deletions)); err != nil {
		return catalog.Product{}, err
	}
	if err := execRows(tx, "record backfill", len(change.Backfill), nil,
		insertBackfillEvents, toBackfillEventRows(change.Backfill)); err != nil {
		return catalog.Product{}, err
	}
	return normalized(p), send(tx, append(slices.Clip(change.Outbox), released...))
}

// normalized returns p as the database would return it: the slices of the caller copied, times cut to microseconds.
func normalized(p catalog.Product) catalog.Product {
	if p.Deleted {
		return catalog.Product{ID: p.ID, Version: p.Version, Deleted: true}
	}
	p.ImageURLs, p.Compressed = nonNil(p.ImageURLs), nonNil(p.Compressed)
	p.Images = imagesOfRows(toImagesAndJobs(p))
	return p
}

// sameProduct compares what Edit may change outside the images.
func sameProduct(a, b catalog.Product) bool {
	if a.Price.Equal(b.Price) {
		a.Price = b.Price // 1.5 and 1.50 are equal, but differ for DeepEqual
	}
	return a.Deleted == b.Deleted && reflect.DeepEqual(productValues(a), productValues(b))
}

func (h lockedProduct) updateProduct(tx *gorm.DB, old, p catalog.Product) error {
	switch {
	case old.Deleted:
		return errors.New("edit product: a deleted product cannot be changed")
	case p.Version < old.Version:
		return fmt.Errorf("edit product: version %d is older than %d", p.Version, old.Version)
	case p.Revision < old.Revision:
		return fmt.Errorf("edit product: revision %d is older than %d", p.Revision, old.Revision)
	}
	args := append([]any{int64(old.ID)}, productValues(p)...)
	if err := tx.Exec(updateProduct, append(args, p.UpdatedAt, p.Deleted, h.now)...).Error; err != nil {
		return fmt.Errorf("update product: %w", err)
	}
	return nil
}

// difference is how an edit changes the images of a product.
type difference struct {
	dropped []catalog.ImageID // rows to delete
	changed []imageRow        // rows to write
	moved   []catalog.ImageID // of changed: those with another position
	added   []int             // indexes of new images in the edited product
	jobs    jobDifference
}

func (d difference) none() bool {
	return len(d.dropped)+len(d.changed)+len(d.added) == 0 && d.jobs.none()
}

// compare returns the difference between the images that were read and those of p. An edit cannot change the source of an
// image. The rows of removed images take their jobs with them.
func (h lockedProduct) compare(p catalog.Product) (difference, error) {
	var d difference
	if h.product.Deleted {
		return d, nil
	}
	rows := make(map[catalog.ImageID]imageAndJob, len(p.Images))
	for _, r := range h.product.Images.V { // normalized, so that it is comparable
		img := r.fromRow()
		rows[img.ID] = imageAndJob{Image: toImageRow(r.Image.fromRow()), Job: toJobRow(h.product.fromRow(), img)}
	}
	for i, img := range p.Images {
		if img.Position != i {
			return d, fmt.Errorf("edit product: image %d at index %d has position %d", img.ID, i, img.Position)
		}
		if img.ID == 0 {
			d.added = append(d.added, i)
			d.jobs.compare(i, 0, nil, toJobRow(p, img))
			continue
		}
		old, known := rows[img.ID]
		delete(rows, img.ID) // a second image with this id is an error
		if !known || old.Image.SourceURL != img.SourceURL || old.Image.ProductID != img.ProductID {
			return d, fmt.Errorf("edit product: image %d is of another product or has another source", img.ID)
		}
		d.compareImage(old.Image, img)
		d.jobs.compare(i, img.ID, old.Job, toJobRow(p, img))
	}
	d.dropped = slices.Collect(maps.Keys(rows))
	return d, nil
}

// compareImage adds the difference between an image's row and img.
func (d *difference) compareImage(old imageRow, img catalog.Image) {
	r := toImageRow(img)
	if img.JobState != catalog.Idle {
		r.keepOutcome(old)
	}
	if reflect.DeepEqual(old, r) {
		return
	}
	d.changed = append(d.changed, r)
	if old.Position != r.Position {
		d.moved = append(d.moved, r.ID)
	}
}

// writeImages writes the difference and sets the ids of the new images of p.
func (h lockedProduct) writeImages(tx *gorm.DB, p *catalog.Product, d difference) error {
	if err := execRows(tx, "delete images", len(d.dropped), errRowsGone, deleteImages, h.product.ID, d.dropped); err != nil {
		return err
	}
	if err := execRows(tx, "move images", len(d.moved), errRowsGone, clearPositions, h.product.ID, d.moved); err != nil {
		return err
	}
	if err := execRows(tx, "update images", len(d.changed), errRowsGone,
		updateImages, h.product.ID, asJSON[[]imageRow]{d.changed}, h.now); err != nil {
		return err
	}
	if len(d.added) == 0 {
		return nil
	}
	added := make([]catalog.Image, len(d.added))
	for i, at := range d.added {
		added[i] = p.Images[at]
	}
	inserted, err := insertImageRows(tx, p.ID, added, h.now)
	if err != nil {
		return err
	}
	p.Images = slices.Clone(p.Images) // the caller's slice must not change
	for i, at := range d.added {
		p.Images[at] = inserted[i]
	}
	return nil
}

// errRowsGone means that another program writes images without the lock on their product, which protects them.
var errRowsGone = errors.New("some of the rows no longer exist")

// execRows runs a statement for a number of rows, or nothing if that number is 0. If the statement affects another number
// of rows, it returns fewer; a nil fewer allows any number.
func execRows(tx *gorm.DB, verb string, rows int, fewer error, statement string, args ...any) error {
	if rows == 0 {
		return nil
	}
	done := tx.Exec(statement, args...)
	err := done.Error
	if err == nil && done.RowsAffected != int64(rows) {
		err = fewer
	}
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return nil
}
