package postgres

import (
	"context"
	"time"

	"vitrine.io/pkg/domain/catalog"
)

// recentImages is how many of the newest images RecentSources looks at, so that its cost does not grow with the table. If
// one user created all of them, it finds only that user.
const recentImages = 2000

// selectRecentSources reads the newest images by the primary key.
const selectRecentSources = `
SELECT DISTINCT ON (p.user_id) p.user_id, i.source_url
FROM (SELECT * FROM images ORDER BY id DESC LIMIT $1) i JOIN products p ON p.id = i.product_id
WHERE i.status = 'ready' AND i.reprocess_error = '' AND NOT EXISTS (SELECT FROM image_jobs j WHERE j.image_id = i.id)
    AND i.updated_at >= now() - make_interval(secs => $2) AND p.deleted_at IS NULL
ORDER BY p.user_id, i.id DESC
LIMIT $3`

// RecentSources implements worker.RecentSources: it returns the newest source of each user.
func (s *Store) RecentSources(ctx context.Context, within time.Duration, limit int) ([]catalog.RecentSource, error) {
	type row struct {
		UserID    catalog.UserID
		SourceURL string
	}
	rows, err := query[row](ctx, s.db, "recent_sources", selectRecentSources, recentImages, within.Seconds(), limit)
	if err != nil {
		return nil, err
	}
	found := make([]catalog.RecentSource, len(rows))
	for i, r := range rows {
		found[i] = catalog.RecentSource{UserID: r.UserID, URL: r.SourceURL}
	}
	return found, nil
}
