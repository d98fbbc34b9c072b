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

// crashable returns the directory of an api and a worker that can be crashed at a step. They are built without -race and
// without coverage: what is killed leaves no counters.
var crashable = sync.OnceValues(func() (string, error) {
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

// The groups of the consumers.
const (
	workers = "vitrine.workers"
	caches  = "vitrine.cache"
)

// victim is the Kafka client id of a program that is going to be crashed.
const victim = "victim"

// stage is a system whose programs are crashed, with a look behind its scenes.
type stage struct {
	*system
	db      *sql.DB
	bucket  *blob.Bucket
	cluster sarama.ClusterAdmin
	client  sarama.Client
	userID  int64
}

// newStage sets one up. perHost is how many pictures may be fetched from one host at a time.
func newStage(t *testing.T, perHost int) *stage {
	t.Helper()
	bin, err := crashable()
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{system: newSystem(t, map[string]string{
		"VITRINE_RESCUER_INTERVAL": "100ms", "VITRINE_CLEANER_INTERVAL": "100ms", "VITRINE_GC_INTERVAL": "100ms",
		"VITRINE_GC_SECOND_PASS_AFTER": "100ms",
		"VITRINE_SHUTDOWN_GRACE":       "60s", "VITRINE_WORKER_BUSY_WAIT": "300ms",
	})}
	s.bin = bin
	p := pipeline.Default()
	p.Spec.Fetch.AllowCIDRs, p.Spec.Fetch.PerHost = []string{"127.0.0.0/8"}, perHost
	p.Spec.Retry.Backoff = 200_000_000
	s.must(os.WriteFile(s.env["VITRINE_PIPELINE_FILE"], p.Document(), 0o600))

	s.db, err = sql.Open("pgx", s.env["VITRINE_POSTGRES_DSN"])
	s.must(err)
	s.bucket, err = blob.New(blob.Config{
		Endpoint: s.env["VITRINE_S3_ENDPOINT"], Region: s.env["VITRINE_S3_REGION"], Bucket: s.env["VITRINE_S3_BUCKET"],
		AccessKey: s.env["VITRINE_S3_ACCESS_KEY"], SecretKey: s.env["VITRINE_S3_SECRET_KEY"], PathStyle: true,
		MaxAttempts: 3, AttemptTimeout: patience,
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
		"INSERT INTO users (name, email) VALUES ('Ada', 'ada@example.com') RETURNING id").Scan(&s.userID))
	return s
}

// in is the same stage for one scene: a subtest, with sources and programs of its own.
func (s *stage) in(t *testing.T) *stage {
	t.Helper()
	scene, system := *s, *s.system
	system.t, system.sources = t, newSources(t)
	scene.system = &system
	return &scene
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// doomed starts a program that will crash at a step, at its nth time.
func (s *stage) doomed(program string, at failpoint.Name, nth int, more ...string) *running {
	s.t.Helper()
	return s.launch(program, append(more,
		fmt.Sprintf("VITRINE_FAILPOINT=%s:%d", at, nth), "VITRINE_KAFKA_CLIENT_ID="+victim)...)
}

// dies waits until the program has crashed, and lets the group know: what it finds out by itself after ten seconds.
func (s *stage) dies(r *running, group string) {
	s.t.Helper()
	eventually(s.t, r.Name+" crashes", func() error {
		if r.Running() {
			return errors.New("it lives")
		}
		return nil
	})
	if state := r.State(); state != "signal: killed" {
		s.t.Fatalf("%s ended with %s\n%s", r.Name, state, r.Tail())
	}
	s.expel(group)
}

// expel removes the victim from a group, as the group does when it has heard nothing for the session timeout.
func (s *stage) expel(group string) {
	s.t.Helper()
	name := s.env["VITRINE_KAFKA_TOPIC_PREFIX"] + group
	groups, err := s.cluster.DescribeConsumerGroups([]string{name})
	s.must(err)
	coordinator, err := s.client.Coordinator(name)
	s.must(err)
	for id, member := range groups[0].Members {
		if member.ClientId == victim {
			_, err := coordinator.LeaveGroup(&sarama.LeaveGroupRequest{GroupId: name, MemberId: id})
			s.must(err)
		}
	}
}

// stops stops a program in the orderly way.
func (s *stage) stops(r *running) {
	s.t.Helper()
	s.must(r.Stop())
}

// caughtUp waits until a group has committed everything there is in its topic.
func (s *stage) caughtUp(group, topic string) {
	s.t.Helper()
	prefix := s.env["VITRINE_KAFKA_TOPIC_PREFIX"]
	eventually(s.t, group+" has no lag", func() error {
		partitions, err := s.client.Partitions(prefix + topic)
		s.must(err)
		marks, err := s.cluster.ListConsumerGroupOffsets(prefix+group, map[string][]int32{prefix + topic: partitions})
		s.must(err)
		for _, partition := range partitions {
			end, err := s.client.GetOffset(prefix+topic, partition, sarama.OffsetNewest)
			s.must(err)
			if at := max(0, marks.GetBlock(prefix+topic, partition).Offset); at != end {
				return fmt.Errorf("partition %d: it is at %d of %d", partition, at, end)
			}
		}
		return nil
	})
}

// offer posts a product under a name and does not mind if nobody answers.
func (s *stage) offer(name string, urls ...string) (client.Product, error) {
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

// named returns the ids of the products with that name.
func (s *stage) named(name string) []int64 {
	s.t.Helper()
	return list[int64](s, "SELECT id FROM products WHERE product_name = $1 AND deleted_at IS NULL ORDER BY id", name)
}

// waiting is how many messages the outbox holds.
func (s *stage) waiting() int64 {
	s.t.Helper()
	return list[int64](s, "SELECT count(*) FROM outbox")[0]
}

// list returns the rows of a statement with one column.
func list[T any](s *stage, statement string, args ...any) []T {
	s.t.Helper()
	rows, err := s.db.QueryContext(s.t.Context(), statement, args...)
	s.must(err)
	defer rows.Close()
	var all []T
	for rows.Next() {
		var one T
		s.must(rows.Scan(&one))
		all = append(all, one)
	}
	s.must(rows.Err())
	return all
}

func (s *stage) exec(statement string, args ...any) {
	s.t.Helper()
	_, err := s.db.ExecContext(s.t.Context(), statement, args...)
	s.must(err)
}

// objects returns the keys below a prefix.
func (s *stage) objects(prefix string) []string {
	s.t.Helper()
	var keys []string
	s.must(s.bucket.List(s.t.Context(), prefix, func(o blob.ObjectInfo) error {
		keys = append(keys, o.Key)
		return nil
	}))
	return keys
}

// ending is what has to have become of a product with one picture.
type ending struct {
	version  int64
	attempts int
	fence    int64
	code     string // why it failed; "": it is ready
}

// untroubled is the ending as if nothing had happened.
var untroubled = ending{version: 2, attempts: 1, fence: 1}

// begunAgain is the same after one attempt that died.
var begunAgain = ending{version: 2, attempts: 1, fence: 2}

// ends waits until everything about a product has settled and holds it to its ending: in the API's answer, in the rows, in
// the outbox, in the bucket and on the dead topic. An api and a worker have to be running.
func (s *stage) ends(id int64, want ending) {
	s.t.Helper()
	p := s.rests(id)
	img := p.Images[0]
	got := ending{version: p.Version, attempts: img.Attempts}
	if img.Error != nil {
		got.code = img.Error.Code
	}
	var work, prefix string
	var ticket sql.NullString
	var begins int
	s.must(s.db.QueryRowContext(s.t.Context(),
		"SELECT fencing_token, job_state, job_id::text, unreported_attempts, prefix FROM images WHERE product_id = $1", id,
	).Scan(&got.fence, &work, &ticket, &begins, &prefix))
	if got != want || len(p.Images) != 1 {
		s.t.Errorf("got %+v, want %+v", got, want)
	}
	if work != "idle" || ticket.Valid || begins != 0 {
		s.t.Errorf("the picture is %s with ticket %q and %d begins: it is not at rest", work, ticket.String, begins)
	}
	s.shows(p, prefix)
	s.onlyLiving(id)
	if deaths := s.deaths(id); want.code == "" && len(deaths) != 0 || want.code != "" && len(deaths) != 1 {
		s.t.Errorf("%d deaths are told of: %v", len(deaths), deaths)
	}
}

// rests waits until nothing is going on about a product, and returns it as clients read it then: through the cache, and
// as new as its row.
func (s *stage) rests(id int64) client.Product {
	s.t.Helper()
	eventually(s.t, "nothing is in work", func() error {
		if n := list[int64](s, "SELECT count(*) FROM images WHERE product_id = $1 AND job_state <> 'idle'", id)[0]; n != 0 {
			return fmt.Errorf("%d pictures are", n)
		}
		if n := s.waiting(); n != 0 {
			return fmt.Errorf("%d messages wait", n)
		}
		return nil
	})
	version := list[int64](s, "SELECT version FROM products WHERE id = $1", id)[0]
	var p client.Product
	eventually(s.t, fmt.Sprintf("product %d is read as it is", id), func() error {
		p = client.Product{}
		s.decode(s.call(http.MethodGet, fmt.Sprintf("/products/%d", id), ""), http.StatusOK, &p)
		if p.Version != version {
			return fmt.Errorf("version %d is read, not %d", p.Version, version)
		}
		return nil
	})
	return p
}

// shows checks that what the product shows is there, all of it of its last attempt.
func (s *stage) shows(p client.Product, prefix string) {
	s.t.Helper()
	if p.Images[0].Status != "ready" {
		return
	}
	if n := len(p.Images[0].Renditions); n != 6 || len(p.Compressed) != 1 {
		s.t.Errorf("it has %d renditions and %d pictures in compressed_product_images, want 6 and 1", n, len(p.Compressed))
	}
	for _, r := range p.Images[0].Renditions {
		if a := s.call(http.MethodGet, r.URL, ""); a.Status != http.StatusOK || len(a.Body) != r.Bytes ||
			!strings.Contains(r.URL, "/"+prefix) {
			s.t.Errorf("%s: %d with %d bytes, want %d below %s", r.URL, a.Status, len(a.Body), r.Bytes, prefix)
		}
	}
}

// onlyLiving lets the time of dead attempts' objects come, and checks that exactly what is shown is left in the bucket.
func (s *stage) onlyLiving(id int64) {
	s.t.Helper()
	below := fmt.Sprintf("products/%d/", id)
	s.comes(below)
	shown := list[string](s,
		"SELECT DISTINCT r->>'key' FROM images, jsonb_array_elements(renditions) r WHERE product_id = $1", id)
	slices.Sort(shown)
	if stored := s.objects(below); !slices.Equal(stored, shown) {
		s.t.Errorf("the bucket holds\n%s\nand shown are\n%s", strings.Join(stored, "\n"), strings.Join(shown, "\n"))
	}
}

// comes lets the time of all intents below a prefix come, and waits until the compensator is through with them. Nothing
// there may be in work: what is deleted then is deleted a moment later for the second and last time.
func (s *stage) comes(prefix string) {
	s.t.Helper()
	s.exec(`UPDATE scheduled_deletions SET due_at = now() - interval '1 second'
		WHERE started_at IS NULL AND starts_with(prefix, $1)`, prefix)
	eventually(s.t, "no intent is left below "+prefix, func() error {
		if left := list[string](s, "SELECT prefix FROM scheduled_deletions WHERE starts_with(prefix, $1)", prefix); len(left) > 0 {
			return fmt.Errorf("these are: %v", left)
		}
		return nil
	})
}

// deaths returns the distinct ids of the dead events about a product.
func (s *stage) deaths(id int64) []string {
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

// logged waits until a program has logged a message.
func (s *stage) logged(r *running, message string) {
	s.t.Helper()
	eventually(s.t, r.Name+" logs "+message, func() error {
		text, err := os.ReadFile(filepath.Clean(r.Log))
		if err == nil && !strings.Contains(string(text), message) {
			err = errors.New("it has not")
		}
		return err
	})
}
