package postgres

import (
	"context"
	"strconv"

	"gorm.io/gorm"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/domain/scheduler"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/slots"
)

// Store implements the stores of catalog, scheduler and maintenance on one database.
type Store struct {
	db      *DB
	edits   edits
	windows scheduler.Windows
}

// edits are the Edits of each product in this process. One runs at a time, so that waits for a product take no connection.
type edits struct {
	queued  *slots.Slots[catalog.ProductID] // running or waiting
	running *slots.Slots[catalog.ProductID]
}

var (
	_ catalog.Store              = (*Store)(nil)
	_ catalog.Pipelines          = (*Store)(nil)
	_ maintenance.Deletions      = (*Store)(nil)
	_ maintenance.OverdueJobs    = (*Store)(nil)
	_ maintenance.Purger         = (*Store)(nil)
	_ maintenance.KeyPartitions  = (*Store)(nil)
	_ maintenance.ImageFinder    = (*Store)(nil)
	_ maintenance.SavedResponses = (*Store)(nil)
)

// NewStore returns a store on db. All jobs that it writes wait for the scheduler.
func NewStore(db *DB) *Store {
	return &Store{db: db, edits: edits{slots.New[catalog.ProductID](), slots.New[catalog.ProductID]()}}
}

// Releasing returns a store that releases new live jobs at once while the windows are less than half full.
func (s *Store) Releasing(w scheduler.Windows) *Store {
	return &Store{db: s.db, edits: s.edits, windows: w}
}

const insertUser = `
INSERT INTO users (name, email, email_key) VALUES ($1, $2, $3)
RETURNING id, name, email, created_at`

// InsertUser implements catalog.Store.
func (s *Store) InsertUser(ctx context.Context, u catalog.User) (catalog.User, error) {
	err := s.db.transact(ctx, "insert_user", func(tx *gorm.DB) error { return insertUserRow(tx, &u) })
	if err != nil {
		return catalog.User{}, err
	}
	return u, nil
}

// insertUserRow adds u, and sets what the database gives it.
func insertUserRow(tx *gorm.DB, u *catalog.User) error {
	err := tx.Raw(insertUser, u.Name, u.Email, catalog.EmailKey(u.Email)).Find(u).Error
	if violates(err, uniqueViolation, "users_email_key") {
		return fault.Wrap(err, fault.Conflict, "email_taken", "another user has this e-mail address")
	}
	u.CreatedAt = u.CreatedAt.UTC()
	return err
}

const selectUser = `SELECT id, name, email, created_at FROM users WHERE id = $1`

// User implements catalog.Store.
func (s *Store) User(ctx context.Context, id catalog.UserID) (catalog.User, error) {
	missing := fault.New(fault.NotFound, "user_not_found", "there is no user "+strconv.FormatInt(int64(id), 10))
	u, err := find[catalog.User](ctx, s.db, "user", missing, selectUser, int64(id))
	if err != nil {
		return catalog.User{}, err
	}
	u.CreatedAt = u.CreatedAt.UTC()
	return u, nil
}

// imagesOf is the images of a product, with their jobs, as one JSON value, so that a product and its images are one
// row of one snapshot.
const imagesOf = `
    (SELECT coalesce(json_agg(json_build_object('image', i, 'job', j) ORDER BY i.position), '[]')
    FROM images i LEFT JOIN image_jobs j ON j.image_id = i.id WHERE i.product_id = p.id) AS images`

// productColumns are the columns of productRow, of the table products as p, without the images.
const productColumns = `
    p.id, p.user_id, p.product_name, p.product_description, p.product_price,
    to_json(p.product_images) AS product_images, to_json(p.compressed_product_images) AS compressed_product_images,
    p.version, p.revision, p.created_at, p.updated_at, p.deleted_at IS NOT NULL AS deleted`

const selectProduct = `SELECT` + productColumns + `,` + imagesOf + ` FROM products p WHERE p.id = $1`

// Product implements catalog.Store.
func (s *Store) Product(ctx context.Context, id catalog.ProductID) (catalog.Product, error) {
	row, err := find[productRow](ctx, s.db, "product", noProduct(id), selectProduct, int64(id))
	if err != nil {
		return catalog.Product{}, err
	}
	return row.fromRow(), nil
}

func noProduct(id catalog.ProductID) error {
	return fault.New(fault.NotFound, "product_not_found", "there is no product "+id.String())
}

const insertPipeline = `INSERT INTO pipelines (hash, spec) VALUES ($1, $2::text::json) ON CONFLICT (hash) DO NOTHING`

// SavePipeline implements catalog.Pipelines.
func (s *Store) SavePipeline(ctx context.Context, hash string, document []byte) error {
	_, err := s.db.exec(ctx, "save_pipeline", insertPipeline, hash, string(document))
	return err
}

const selectPipeline = `SELECT spec::text FROM pipelines WHERE hash = $1`

// Pipeline implements catalog.Pipelines.
func (s *Store) Pipeline(ctx context.Context, hash string) ([]byte, error) {
	missing := fault.New(fault.NotFound, "pipeline_not_found", "there is no pipeline with this hash")
	document, err := find[string](ctx, s.db, "pipeline", missing, selectPipeline, hash)
	if err != nil {
		return nil, err
	}
	return []byte(document), nil
}

// errNoInstallation means that the row that the migrations insert is gone.
var errNoInstallation = fault.New(fault.Internal, "no_installation", "the database has no installation id")

const selectInstallation = `SELECT id::text AS id, epoch FROM installation`

// Installation returns the id of this installation, a UUID that the migrations created, and its epoch, the number of
// restores from a backup.
func (s *Store) Installation(ctx context.Context) (id string, epoch int64, err error) {
	type row struct {
		ID    string
		Epoch int64
	}
	found, err := find[row](ctx, s.db, "installation", errNoInstallation, selectInstallation)
	return found.ID, found.Epoch, err
}
