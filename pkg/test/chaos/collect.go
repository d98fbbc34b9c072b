package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // format of renditions
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/jackc/pgx/v5"
	_ "golang.org/x/image/webp" // format of renditions

	"vitrine.io/pkg/test/client"
)

// collect reads the final state. It connects to the servers directly, not through the proxies.
func (s *System) collect(ctx context.Context, expectations []*Expectation) (*Snapshot, error) {
	snap := &Snapshot{Expectations: expectations, PublicURL: s.publicURL()}
	if err := s.collectResponses(ctx, snap); err != nil {
		return nil, err
	}
	if err := s.collectRows(ctx, snap); err != nil {
		return nil, err
	}
	var err error
	if snap.Events, err = s.readEvents(ctx); err != nil {
		return nil, err
	}
	if snap.Objects, err = s.objects(ctx, true); err != nil {
		return nil, err
	}
	return snap, nil
}

func (s *System) collectRows(ctx context.Context, snap *Snapshot) error {
	conn, err := s.database.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if snap.Products, err = rows[ProductRow](ctx, conn, `
		SELECT to_jsonb(p) FROM products p WHERE user_id > $1 ORDER BY id`, s.stock); err != nil {
		return err
	}
	if snap.Images, err = rows[ImageRow](ctx, conn, `
		SELECT to_jsonb(i) || coalesce(to_jsonb(j), '{"job_state": "idle"}')
		FROM images i LEFT JOIN image_jobs j ON j.image_id = i.id ORDER BY i.id`); err != nil {
		return err
	}
	deletions := `SELECT to_jsonb(d) FROM scheduled_deletions d ORDER BY prefix`
	if snap.Deletions, err = rows[DeletionRow](ctx, conn, deletions); err != nil {
		return err
	}
	backfills := `SELECT to_jsonb(b) FROM backfills b ORDER BY id`
	if snap.Backfills, err = rows[BackfillRow](ctx, conn, backfills); err != nil {
		return err
	}
	counts := `SELECT count(*), count(parked_at) FROM outbox`
	if err := conn.QueryRow(ctx, counts).Scan(&snap.Outbox, &snap.Parked); err != nil {
		return fmt.Errorf("count the outbox: %w", err)
	}
	found, err := conn.Query(ctx, `SELECT at, tx, kind, op, old, new FROM chaos_changes ORDER BY n`)
	if err != nil {
		return fmt.Errorf("read changes: %w", err)
	}
	snap.recorded, err = pgx.CollectRows(found, pgx.RowToStructByPos[recordedChange])
	if err != nil {
		return fmt.Errorf("read changes: %w", err)
	}
	snap.Changes, snap.Jobs, err = mergeChanges(snap.recorded)
	return err
}

// rows runs a query whose only column is JSON, and decodes its rows.
func rows[T any](ctx context.Context, conn *pgx.Conn, query string, args ...any) ([]T, error) {
	found, err := conn.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	all, err := pgx.CollectRows(found, func(row pgx.CollectableRow) (T, error) {
		var raw []byte
		var one T
		if err := row.Scan(&raw); err != nil {
			return one, err
		}
		return one, json.Unmarshal(raw, &one)
	})
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	return all, nil
}

// collectResponses requests every product and every user's list from both APIs.
func (s *System) collectResponses(ctx context.Context, snap *Snapshot) error {
	conn, err := s.database.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	ids, err := rows[int64](ctx, conn, `SELECT to_jsonb(id) FROM products WHERE user_id > $1 ORDER BY id`, s.stock)
	if err != nil {
		return err
	}
	users, err := rows[int64](ctx, conn, `SELECT to_jsonb(id) FROM users WHERE id > $1 ORDER BY id`, s.stock)
	if err != nil {
		return err
	}
	c := client.New("", client.Options{Timeout: 10 * time.Second})
	defer c.Close()
	for _, api := range s.apis {
		for _, id := range ids {
			a, err := c.Do(ctx, http.MethodGet, fmt.Sprintf("%s/products/%d", api, id), nil)
			if err != nil {
				return fmt.Errorf("read product %d: %w", id, err)
			}
			r := ProductResponse{API: api, ID: id, Status: a.Status, ETag: a.ETag(), Body: a.Body}
			if a.Status == http.StatusOK {
				if r.Product, err = a.Product(); err != nil {
					return fmt.Errorf("product %d: %w", id, err)
				}
			}
			snap.Responses = append(snap.Responses, r)
		}
		for _, user := range users {
			snap.Lists = append(snap.Lists, listAll(ctx, c, api, user))
		}
	}
	return nil
}

// listAll reads all pages of a user's products.
func listAll(ctx context.Context, c *client.Client, api string, user int64) ListResponse {
	list := ListResponse{API: api, UserID: user}
	query := url.Values{"user_id": {fmt.Sprint(user)}, "limit": {"30"}}
	for {
		a, err := c.Do(ctx, http.MethodGet, api+"/products?"+query.Encode(), nil)
		if err != nil || a.Status != http.StatusOK {
			list.Err = fmt.Sprintf("%v %d %s", err, a.Status, a.Body)
			return list
		}
		var page struct {
			Products []json.RawMessage `json:"products"`
			Next     *string           `json:"next_cursor"`
		}
		if err := json.Unmarshal(a.Body, &page); err != nil {
			list.Err = err.Error()
			return list
		}
		list.Items = append(list.Items, page.Products...)
		if page.Next == nil {
			return list
		}
		query = url.Values{"cursor": {*page.Next}, "limit": {"30"}}
	}
}

// objects lists both buckets, which have no key in common but those of the programs themselves. If decode is set, it also
// downloads each object and decodes it as an image.
func (s *System) objects(ctx context.Context, decode bool) (map[string]Object, error) {
	found := map[string]Object{}
	for _, bucket := range []string{s.bucket.Bucket, s.originals().Bucket} {
		if err := s.addObjects(ctx, bucket, decode, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (s *System) addObjects(ctx context.Context, bucket string, decode bool, found map[string]Object) error {
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(s.bucket.Endpoint), Region: s.bucket.Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s.bucket.AccessKey, s.bucket.SecretKey, ""),
	})
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list bucket: %w", err)
		}
		for _, entry := range page.Contents {
			key := aws.ToString(entry.Key)
			found[key] = Object{Bytes: aws.ToInt64(entry.Size)}
			if !decode {
				continue
			}
			o, err := readObject(ctx, client, bucket, key)
			if missing := new(types.NoSuchKey); errors.As(err, &missing) { // deleted on schedule since it was listed
				delete(found, key)
				continue
			}
			if err != nil {
				return err
			}
			found[key] = o
		}
	}
	return nil
}

func readObject(ctx context.Context, client *s3.Client, bucket, key string) (Object, error) {
	got, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return Object{}, fmt.Errorf("get %s: %w", key, err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if err != nil {
		return Object{}, fmt.Errorf("get %s: %w", key, err)
	}
	sum := sha256.Sum256(body)
	o := Object{Bytes: int64(len(body)), SHA256: hex.EncodeToString(sum[:]), Type: aws.ToString(got.ContentType)}
	m, format, err := image.Decode(bytes.NewReader(body))
	if err != nil {
		o.Err = err.Error()
		return o, nil
	}
	o.Format, o.Width, o.Height = format, m.Bounds().Dx(), m.Bounds().Dy()
	return o, nil
}
