package postgres

import (
	"context"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"

	"vitrine.io/pkg/domain/catalog"
)

// List implements catalog.Store. It reads one row more than the page needs, to know whether there is a next page.
func (s *Store) List(ctx context.Context, q catalog.Query) (catalog.Page, error) {
	var rows []productRow
	err := s.db.call(ctx, "list", func(conn *gorm.DB) error {
		text, args := listQuery(q)
		return conn.Raw(text, args...).Find(&rows).Error
	})
	if err != nil {
		return catalog.Page{}, err
	}
	page := catalog.Page{Products: make([]catalog.Product, 0, len(rows))}
	more := len(rows) > q.Limit
	if more {
		rows = rows[:q.Limit]
	}
	for _, r := range rows {
		page.Products = append(page.Products, r.fromRow())
	}
	if more {
		last := page.Products[len(page.Products)-1]
		page.Next = &catalog.Cursor{ID: last.ID, Price: last.Price}
	}
	return page, nil
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
//
// Because of the first argument, the server plans each call with its values. A prepared statement may be planned once for
// all values. But a frequent name needs a plan that reads rows in the order of the list until the limit is reached, and a
// rare name needs a plan that uses the trigram index. The wrong plan reads the whole table.
func listQuery(q catalog.Query) (string, []any) {
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
		where = append(where, "p.product_name ILIKE "+arg("%"+escapeLike(q.Name)+"%", "text"))
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
	text := `SELECT` + productColumns + `,` + imagesOf + `
FROM (SELECT * FROM products p
    WHERE ` + strings.Join(where, " AND ") + `
    ORDER BY ` + sort.by + ` LIMIT ` + arg(q.Limit+1, "bigint") + `) p
ORDER BY ` + sort.by
	return text, args
}

// escapeLike returns a LIKE pattern that matches text literally.
func escapeLike(text string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text)
}
