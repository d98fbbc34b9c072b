package system_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/test/imageserver"
)

// noteTransactions records, in the table written, which transaction writes to a row of a product, of its images and jobs, of
// their scheduled deletions, or of their messages.
const noteTransactions = `
CREATE TABLE written (product_id bigint, relation text, op text, xid xid8);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed jsonb := to_jsonb(coalesce(NEW, OLD));
    product bigint := changed ->> TG_ARGV[0];
BEGIN
    IF TG_TABLE_NAME = 'scheduled_deletions' THEN
        SELECT i.product_id INTO product FROM images i WHERE i.id = product;
    END IF;
    INSERT INTO written VALUES (product, TG_TABLE_NAME, TG_OP, pg_current_xact_id());
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON products FOR EACH ROW EXECUTE FUNCTION note('id');
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON images FOR EACH ROW EXECUTE FUNCTION note('product_id');
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON image_jobs FOR EACH ROW EXECUTE FUNCTION note('product_id');
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON scheduled_deletions FOR EACH ROW EXECUTE FUNCTION note('image_id');
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION note('key')`

// The transactions that write for a product with one image, from accepted to published. transactionsMin is the minimum:
// Insert; the batch of the relay with the messages of Insert; Begin; Finish; the batch with the message of Finish. Between
// two of them something outside Postgres happens that must not precede the first or follow the second, so no two can be one.
// The table of jobs may cost at most three more, and costs two. Many images share batches and rounds; here each has its own.
const (
	transactionsMin     = 5
	transactionsRelease = 2 // the round of the scheduler that releases a waiting job, and the batch with its message
	transactionsRetry   = 3 // Retry, the batch with its message, because clients see the attempts, and the next Begin
	transactionsDefer   = 2 // Defer, which clients do not see, and the next Begin
)

// TestTransactions counts the transactions that write for an image, until it is ready and the message of its change is
// published, and the updates of its row in images. The workers start when all products are accepted, so only the first image
// is released by Insert.
func TestTransactions(t *testing.T) {
	t.Parallel()
	stub := filepath.Join(t.TempDir(), "codecstub-0s")
	if err := os.Symlink(filepath.Join(binDir(t), "codecstub"), stub); err != nil {
		t.Fatal(err)
	}
	s := newSystem(t, map[string]string{
		"VITRINE_CODEC_PATH": stub, "VITRINE_SCHEDULER_HOST_WINDOW": "2", "VITRINE_SCHEDULER_WINDOW": "2",
		"VITRINE_S3_MAX_ATTEMPTS": "1",
	})
	conn, err := pgx.Connect(t.Context(), s.env["VITRINE_POSTGRES_DSN"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), noteTransactions); err != nil {
		t.Fatal(err)
	}
	s.start("api")
	user := s.user()
	products := map[string]int64{}
	for i, name := range []string{imageserver.JPEG, imageserver.PNG, imageserver.FlakyOnce} {
		products[name] = s.post(user, fmt.Sprintf("%s/%dx48/%s", s.sources.URL, 64+i, name)).ID
	}
	s.start("worker", "VITRINE_S3_ENDPOINT="+refuseSecondAttempts(t, s.env["VITRINE_S3_ENDPOINT"]))
	for name, id := range products {
		if p := s.awaitSettled(id); p.ImageStatus != "ready" {
			t.Errorf("%s: got %+v, want ready", name, p.Images)
		}
	}
	eventually(t, "all messages are published", func() error { return queryTrue(t, conn, `SELECT count(*) = 0 FROM outbox`) })
	waited := transactionsMin + transactionsRelease
	for name, most := range map[string]int{
		imageserver.JPEG: transactionsMin, imageserver.PNG: waited,
		imageserver.FlakyOnce: waited + transactionsRetry + transactionsDefer + 2*transactionsRelease,
	} {
		got := written(t, conn, products[name])
		if got.transactions > most || got.updates != 1 {
			t.Errorf("%s: got %d transactions and %d updates of the image, want at most %d and 1", name, got.transactions,
				got.updates, most)
		}
	}
	if got := written(t, conn, products[imageserver.FlakyOnce]).begun; got != 3 {
		t.Errorf("the third image has had %d attempts, want one that is retried, one that is deferred, and the last", got)
	}
}

// queryTrue returns an error unless a query returns true.
func queryTrue(t *testing.T, conn *pgx.Conn, query string) error {
	t.Helper()
	var ok bool
	err := conn.QueryRow(t.Context(), query).Scan(&ok)
	if err == nil && !ok {
		err = fmt.Errorf("not true: %s", query)
	}
	return err
}

// imageWrites is what was written for a product with one image.
type imageWrites struct {
	transactions, updates, begun int
}

func written(t *testing.T, conn *pgx.Conn, product int64) (w imageWrites) {
	t.Helper()
	err := conn.QueryRow(t.Context(), `SELECT count(DISTINCT xid),
			count(*) FILTER (WHERE relation = 'images' AND op = 'UPDATE'),
			count(*) FILTER (WHERE relation = 'scheduled_deletions' AND op = 'INSERT')
		FROM written WHERE product_id = $1`, product).Scan(&w.transactions, &w.updates, &w.begun)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// refuseSecondAttempts starts a proxy of an object store which refuses the objects of each image's second attempt, by their
// prefix. It returns the proxy's URL.
func refuseSecondAttempts(t *testing.T, store string) string {
	t.Helper()
	target, err := url.Parse(store)
	if err != nil {
		t.Fatal(err)
	}
	second := regexp.MustCompile(`/products/\d+/\d+/2-`)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // it is signed
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && second.MatchString(r.URL.Path) {
			http.Error(w, "unavailable", http.StatusServiceUnavailable)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}
