package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"

	"vitrine.io/pkg/domain/catalog"
)

// List implements catalog.Store. It reads one row more than the page needs, to know whether there is a next page. Rows are
// read one at a time, because a page of the largest products would be many megabytes.
func (s *Store) List(ctx context.Context, q catalog.Query) (catalog.Page, error) {
	var page catalog.Page
	err := s.db.lists.run(ctx, q, func(conn *gorm.DB, byTrigrams bool) (err error) {
		text, args := listQuery(q, byTrigrams)
		page, err = readPage(conn, q, text, args)
		return err
	})
	if err != nil {
		return catalog.Page{}, err
	}
	return page, nil
}

// readPage reads the rows of a statement until the page is full.
func readPage(conn *gorm.DB, q catalog.Query, text string, args []any) (page catalog.Page, err error) {
	rows, err := conn.Raw(text, args...).Rows()
	if err != nil {
		return catalog.Page{}, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	page.Products = make([]catalog.Product, 0, q.Limit)
	size := 0
	for rows.Next() {
		if n := len(page.Products); n == q.Limit || q.MaxBytes > 0 && size >= q.MaxBytes {
			page.Next = &catalog.Cursor{ID: page.Products[n-1].ID, Price: page.Products[n-1].Price}
			return page, nil
		}
		var row productRow
		if err := conn.ScanRows(rows, &row); err != nil {
			return catalog.Page{}, fmt.Errorf("read product: %w", err)
		}
		p := row.fromRow()
		page.Products, size = append(page.Products, p), size+p.Size()
	}
	return page, rows.Err()
}

// order is a sort in SQL. Ascending and descending order read one index in both directions.
type order struct {
	by    string // for ORDER BY, of a products p
	after string // the comparison for rows behind a position
	price bool   // whether the position includes the price
}

func orderOf(sort catalog.Sort) order {
	switch sort {
	case catalog.CheapestFirst:
		return order{by: "p.product_price, p.id", after: "(p.product_price, p.id) > ", price: true}
	case catalog.MostExpensiveFirst:
		return order{by: "p.product_price DESC, p.id DESC", after: "(p.product_price, p.id) < ", price: true}
	default:
		return order{by: "p.id DESC", after: "p.id < "}
	}
}

// listQuery returns the statement of a page and its arguments. The limit applies before images are read.
func listQuery(q catalog.Query, byTrigrams bool) (string, []any) {
	text, args := productsQuery(q, byTrigrams, new(q.Limit+1))
	return `SELECT` + productColumns + `,` + imagesOf + `
FROM (` + text + `) p
ORDER BY ` + orderOf(q.Sort).by, args
}

// productsQuery returns the statement of the first products of a list, without their images, and its arguments. A nil limit
// is none.
//
// Without byTrigrams the name has no trigram, and its condition is written so that the trigram index cannot be used: that
// index would return every product, which the planner takes for few.
//
// Because of the first argument, the server plans each call with its values. A prepared statement may be planned once for
// all values. But a frequent name needs a plan that reads rows in the order of the list until the limit is reached, and a
// rare name needs a plan that uses the trigram index. The wrong plan reads the whole table.
func productsQuery(q catalog.Query, byTrigrams bool, limit *int) (string, []any) {
	args := []any{pgx.QueryExecModeCacheDescribe}
	arg := func(value any, kind string) string {
		args = append(args, value)
		return "$" + strconv.Itoa(len(args)-1) + "::" + kind
	}
	sort := orderOf(q.Sort)
	where := []string{"p.deleted_at IS NULL"}
	if q.UserID != 0 {
		where = append(where, "p.user_id = "+arg(int64(q.UserID), "bigint"))
	}
	if q.Name != "" {
		name := "p.product_name"
		if !byTrigrams {
			name += " || ''"
		}
		where = append(where, name+" ILIKE "+arg("%"+escapeLike(q.Name)+"%", "text"))
	}
	if q.MinPrice != nil {
		where = append(where, "p.product_price >= "+arg(*q.MinPrice, "numeric"))
	}
	if q.MaxPrice != nil {
		where = append(where, "p.product_price <= "+arg(*q.MaxPrice, "numeric"))
	}
	switch {
	case q.After != nil && sort.price:
		where = append(where, sort.after+"("+arg(q.After.Price, "numeric")+", "+arg(int64(q.After.ID), "bigint")+")")
	case q.After != nil:
		where = append(where, sort.after+arg(int64(q.After.ID), "bigint"))
	}
	text := `SELECT * FROM products p
    WHERE ` + strings.Join(where, " AND ") + `
    ORDER BY ` + sort.by + ` LIMIT ` + arg(limit, "bigint")
	return text, args
}

// escapeLike returns a LIKE pattern that matches text literally.
func escapeLike(text string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text)
}
