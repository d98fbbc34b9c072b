package system_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/IBM/sarama"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/client"
)

// failpointPrograms returns the directory of an api and a worker that crash at a failpoint. They are built without -race and
// without coverage, because a killed process writes no counters.
var failpointPrograms = sync.OnceValues(func() (string, error) {
	dir := builtBin() + "-failpoint"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-tags", "failpoint", "-o", dir+"/", "./cmd/api", "./cmd/worker")
	build.Dir = repository
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build programs with failpoints: %w\n%s", err, out)
	}
	return dir, nil
})

// Consumer groups, without the prefix.
const (
	workerGroup = "vitrine.workers"
	cacheGroup  = "vitrine.cache"
)

// crashClientID is the Kafka client id of a program with a failpoint.
const crashClientID = "crash-test"

// crashEnv is a system whose programs crash at failpoints, with direct access to Postgres, Kafka and the bucket.
type crashEnv struct {
	*system
	db      *sql.DB
	bucket  *blob.Bucket
	cluster sarama.ClusterAdmin
	client  sarama.Client
	userID  int64
}

// newCrashEnv creates a system without running programs. perHost limits concurrent downloads from one host.
func newCrashEnv(t *testing.T, perHost int) *crashEnv {
	t.Helper()
	bin, err := failpointPrograms()
	if err != nil {
		t.Fatal(err)
	}
	s := &crashEnv{system: newSystem(t, map[string]string{
		"VITRINE_RESCUER_INTERVAL": "100ms", "VITRINE_CLEANER_INTERVAL": "100ms", "VITRINE_GC_INTERVAL": "100ms",
		"VITRINE_GC_SECOND_PASS_AFTER": "100ms", "VITRINE_GC_LEASE": "1s",
		"VITRINE_BACKFILL_INTERVAL": "100ms", "VITRINE_BACKFILL_SETTLE": "100ms", "VITRINE_BACKFILL_LEASE": "1s",
		"VITRINE_SHUTDOWN_GRACE": "60s", "VITRINE_WORKER_BUSY_DELAY": "300ms",
	})}
	s.bin = bin
	p := pipeline.Default()
	p.Spec.Fetch.PerHost = perHost
	p.Spec.Retry.Backoff = 200_000_000
	s.must(os.WriteFile(s.env["VITRINE_PIPELINE_FILE"], p.Document(), 0o600))

	s.db, err = sql.Open("pgx", s.env["VITRINE_POSTGRES_DSN"])
	s.must(err)
	s.bucket, err = blob.New(blob.Config{
		Endpoint: s.env["VITRINE_S3_ENDPOINT"], Region: s.env["VITRINE_S3_REGION"], Bucket: s.env["VITRINE_S3_BUCKET"],
		AccessKey: s.env["VITRINE_S3_ACCESS_KEY"], SecretKey: s.env["VITRINE_S3_SECRET_KEY"], PathStyle: true,
		MaxAttempts: 3, AttemptTimeout: timeout,
	}, prometheus.NewRegistry(), zap.NewNop())
	s.must(err)
	s.client, err = sarama.NewClient(strings.Split(s.env["VITRINE_KAFKA_BROKERS"], ","), sarama.NewConfig())
	s.must(err)
	s.cluster, err = sarama.NewClusterAdminFromClient(s.client)
	s.must(err)
	t.Cleanup(func() {
		s.bucket.Close()
		if err := errors.Join(s.db.Close(), s.cluster.Close()); err != nil {
			t.Error(err)
		}
	})
	s.must(s.db.QueryRowContext(t.Context(),
		"INSERT INTO users (name, email, email_key) VALUES ('Ada', 'ada@example.com', 'ada') RETURNING id").Scan(&s.userID))
	return s
}

// forSubtest returns a copy for a subtest, with its own image server and programs.
func (s *crashEnv) forSubtest(t *testing.T) *crashEnv {
	t.Helper()
	env, system := *s, *s.system
	system.t, system.sources = t, newSources(t)
	env.system = &system
	return &env
}

func (s *crashEnv) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// startWithFailpoint starts a program that crashes when it reaches the failpoint for the nth time.
func (s *crashEnv) startWithFailpoint(program string, at failpoint.Name, nth int, more ...string) *running {
	s.t.Helper()
	return s.launch(program, append(more,
		fmt.Sprintf("VITRINE_FAILPOINT=%s:%d", at, nth), "VITRINE_KAFKA_CLIENT_ID="+crashClientID)...)
}

// awaitCrash waits until the program has crashed and removes it from its group, which otherwise happens after the session
// timeout.
func (s *crashEnv) awaitCrash(r *running, group string) {
	s.t.Helper()
	eventually(s.t, r.Name+" crashes", func() error {
		if r.Running() {
			return errors.New("it is running")
		}
		return nil
	})
	if state := r.State(); state != "signal: killed" {
		s.t.Fatalf("%s ended with %s\n%s", r.Name, state, r.Tail())
	}
	s.removeFromGroup(group)
}

// removeFromGroup removes the crashed program from its consumer group, as the broker does after the session timeout.
func (s *crashEnv) removeFromGroup(group string) {
	s.t.Helper()
	name := s.env["VITRINE_KAFKA_TOPIC_PREFIX"] + group
	groups, err := s.cluster.DescribeConsumerGroups([]string{name})
	s.must(err)
	coordinator, err := s.client.Coordinator(name)
	s.must(err)
	for id, member := range groups[0].Members {
		if member.ClientId == crashClientID {
			_, err := coordinator.LeaveGroup(&sarama.LeaveGroupRequest{GroupId: name, MemberId: id})
			s.must(err)
		}
	}
}

// stop stops a program with SIGTERM.
func (s *crashEnv) stop(r *running) {
	s.t.Helper()
	s.must(r.Stop())
}

// awaitNoLag waits until a group has committed the end of every partition of a topic.
func (s *crashEnv) awaitNoLag(group, topic string) {
	s.t.Helper()
	prefix := s.env["VITRINE_KAFKA_TOPIC_PREFIX"]
	eventually(s.t, group+" has no lag", func() error {
		partitions, err := s.client.Partitions(prefix + topic)
		s.must(err)
		offsets, err := s.cluster.ListConsumerGroupOffsets(prefix+group, map[string][]int32{prefix + topic: partitions})
		s.must(err)
		for _, partition := range partitions {
			end, err := s.client.GetOffset(prefix+topic, partition, sarama.OffsetNewest)
			s.must(err)
			if at := max(0, offsets.GetBlock(prefix+topic, partition).Offset); at != end {
				return fmt.Errorf("partition %d: offset %d of %d is committed", partition, at, end)
			}
		}
		return nil
	})
}

// tryPost posts a product with a name. It returns an error if there is no response.
func (s *crashEnv) tryPost(name string, urls ...string) (client.Product, error) {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{
		"user_id": s.userID, "product_name": name, "product_price": "12.50", "product_images": urls,
	})
	s.must(err)
	a, err := s.try(http.MethodPost, "/products", string(body))
	if err != nil {
		return client.Product{}, err
	}
	var p client.Product
	s.decode(a, http.StatusCreated, &p)
	return p, nil
}

// productIDs returns the ids of the products with a name.
func (s *crashEnv) productIDs(name string) []int64 {
	s.t.Helper()
	return queryColumn[int64](s, "SELECT id FROM products WHERE product_name = $1 AND deleted_at IS NULL ORDER BY id", name)
}

// outboxSize returns the number of rows in the outbox.
func (s *crashEnv) outboxSize() int64 {
	s.t.Helper()
	return queryColumn[int64](s, "SELECT count(*) FROM outbox")[0]
}

// queryColumn returns the rows of a query with one column.
func queryColumn[T any](s *crashEnv, statement string, args ...any) []T {
	s.t.Helper()
	rows, err := s.db.QueryContext(s.t.Context(), statement, args...)
	s.must(err)
	defer rows.Close()
	var values []T
	for rows.Next() {
		var value T
		s.must(rows.Scan(&value))
		values = append(values, value)
	}
	s.must(rows.Err())
	return values
}

func (s *crashEnv) exec(statement string, args ...any) {
	s.t.Helper()
	_, err := s.db.ExecContext(s.t.Context(), statement, args...)
	s.must(err)
}

// objects returns the object keys with a prefix.
func (s *crashEnv) objects(prefix string) []string {
	s.t.Helper()
	found, _, err := s.bucket.Page(s.t.Context(), prefix, "", 10_000)
	s.must(err)
	var keys []string
	for _, o := range found {
		keys = append(keys, o.Key)
	}
	return keys
}

// outcome is the final state of a product with one image.
type outcome struct {
	version      int64
	attempts     int
	fencingToken int64
	code         string // error code; "": the image is ready
}

// undisturbed is the outcome without a crash.
var undisturbed = outcome{version: 2, attempts: 1, fencingToken: 1}

// afterRestart is the outcome after one attempt that crashed without reporting a result.
var afterRestart = outcome{version: 2, attempts: 1, fencingToken: 2}

// checkOutcome waits until no work for a product is pending and compares it with the outcome: the API's response, the rows,
// the bucket and the dead topic. An api and a worker must be running.
func (s *crashEnv) checkOutcome(id int64, want outcome) {
	s.t.Helper()
	p := s.awaitIdle(id)
	img := p.Images[0]
	got := outcome{version: p.Version, attempts: img.Attempts}
	if img.Error != nil {
		got.code = img.Error.Code
	}
	var prefix string
	s.must(s.db.QueryRowContext(s.t.Context(),
		"SELECT fencing_token, prefix FROM images WHERE product_id = $1", id).Scan(&got.fencingToken, &prefix))
	if got != want || len(p.Images) != 1 {
		s.t.Errorf("got %+v, want %+v", got, want)
	}
	s.checkRenditions(p, prefix)
	s.checkObjects(id)
	if events := s.deadEvents(id); want.code == "" && len(events) != 0 || want.code != "" && len(events) != 1 {
		s.t.Errorf("got %d dead events: %v", len(events), events)
	}
}

// awaitIdle waits until no job of a product is active, the outbox is empty, and the API returns the product's current
// version. It returns the product.
func (s *crashEnv) awaitIdle(id int64) client.Product {
	s.t.Helper()
	eventually(s.t, "no image is in progress", func() error {
		if n := queryColumn[int64](s, "SELECT count(*) FROM image_jobs WHERE product_id = $1", id)[0]; n != 0 {
			return fmt.Errorf("%d images are in progress", n)
		}
		if n := s.outboxSize(); n != 0 {
			return fmt.Errorf("%d messages are in the outbox", n)
		}
		return nil
	})
	version := queryColumn[int64](s, "SELECT version FROM products WHERE id = $1", id)[0]
	var p client.Product
	eventually(s.t, fmt.Sprintf("the API returns the current version of product %d", id), func() error {
		p = client.Product{}
		s.decode(s.call(http.MethodGet, fmt.Sprintf("/products/%d", id), ""), http.StatusOK, &p)
		if p.Version != version {
			return fmt.Errorf("got version %d, want %d", p.Version, version)
		}
		return nil
	})
	return p
}

// checkRenditions checks that the renditions of a ready image can be downloaded and are of its last attempt.
func (s *crashEnv) checkRenditions(p client.Product, prefix string) {
	s.t.Helper()
	if p.Images[0].Status != "ready" {
		return
	}
	if n := len(p.Images[0].Renditions); n != 6 || len(p.Compressed) != 1 {
		s.t.Errorf("it has %d renditions and %d URLs in compressed_product_images, want 6 and 1", n, len(p.Compressed))
	}
	for _, r := range p.Images[0].Renditions {
		if a := s.call(http.MethodGet, r.URL, ""); a.Status != http.StatusOK || len(a.Body) != r.Bytes ||
			!strings.Contains(r.URL, "/"+prefix) {
			s.t.Errorf("%s: %d with %d bytes, want %d with prefix %s", r.URL, a.Status, len(a.Body), r.Bytes, prefix)
		}
	}
}

// checkObjects runs the scheduled deletions of a product and checks that the bucket then holds exactly the published
// objects.
func (s *crashEnv) checkObjects(id int64) {
	s.t.Helper()
	prefix := fmt.Sprintf("products/%d/", id)
	s.runDeletions(prefix)
	published := queryColumn[string](s,
		"SELECT DISTINCT r->>'key' FROM images, jsonb_array_elements(renditions) r WHERE product_id = $1", id)
	slices.Sort(published)
	if stored := s.objects(prefix); !slices.Equal(stored, published) {
		s.t.Errorf("the bucket holds\n%s\npublished are\n%s", strings.Join(stored, "\n"), strings.Join(published, "\n"))
	}
}

// runDeletions makes the scheduled deletions of a prefix due and waits until the garbage collector has finished both passes.
// No job for the prefix may be active.
func (s *crashEnv) runDeletions(prefix string) {
	s.t.Helper()
	s.exec(`UPDATE scheduled_deletions SET due_at = now() - interval '1 second'
		WHERE started_at IS NULL AND starts_with(prefix, $1)`, prefix)
	eventually(s.t, "no scheduled deletion is left for "+prefix, func() error {
		const query = "SELECT prefix FROM scheduled_deletions WHERE starts_with(prefix, $1)"
		if left := queryColumn[string](s, query, prefix); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
}

// deadEvents returns the distinct ids of the dead events of a product.
func (s *crashEnv) deadEvents(id int64) []string {
	s.t.Helper()
	topic := s.env["VITRINE_KAFKA_TOPIC_PREFIX"] + event.TopicDead
	consumer, err := sarama.NewConsumerFromClient(s.client)
	s.must(err)
	defer consumer.Close()
	partitions, err := s.client.Partitions(topic)
	s.must(err)
	found := map[string]bool{}
	for _, partition := range partitions {
		end, err := s.client.GetOffset(topic, partition, sarama.OffsetNewest)
		s.must(err)
		if end == 0 {
			continue
		}
		from, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
		s.must(err)
		for record := range from.Messages() {
			if string(record.Key) == event.Key(id) {
				found[string(record.Headers[slices.IndexFunc(record.Headers, func(h *sarama.RecordHeader) bool {
					return string(h.Key) == event.HeaderID
				})].Value)] = true
			}
			if record.Offset == end-1 {
				break
			}
		}
		s.must(from.Close())
	}
	return slices.Sorted(maps.Keys(found))
}

// awaitLog waits until a program has logged a message.
func (s *crashEnv) awaitLog(r *running, message string) {
	s.t.Helper()
	eventually(s.t, r.Name+" logs "+message, func() error {
		text, err := os.ReadFile(filepath.Clean(r.Log))
		if err == nil && !strings.Contains(string(text), message) {
			err = errors.New("not logged yet")
		}
		return err
	})
}
