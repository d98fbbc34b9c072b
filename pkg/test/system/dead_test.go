package system_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/imageserver"
)

// kafkaConfig returns the Kafka configuration of the system's programs.
func (s *system) kafkaConfig() kafka.Config {
	return kafka.Config{
		Brokers: strings.Split(s.env["VITRINE_KAFKA_BROKERS"], ","), TopicPrefix: s.env["VITRINE_KAFKA_TOPIC_PREFIX"],
		Version: "2.8.0", ClientID: "test", Partitions: 3, Replication: 1, MinISR: 1,
	}
}

// publisher returns a publisher for records of a test.
func (s *system) publisher() *kafka.Publisher {
	s.t.Helper()
	p, err := kafka.NewPublisher(s.kafkaConfig(), prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = p.Close() })
	return p
}

// records returns how often a text occurs in the records of a topic.
func (s *system) records(topic, text string) int {
	s.t.Helper()
	r, err := kafka.NewReader(s.kafkaConfig())
	if err != nil {
		s.t.Fatal(err)
	}
	n := 0
	if err := r.Read(s.t.Context(), topic, func(r kafka.Record) error {
		n += strings.Count(string(r.Value), text)
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// deadLetter is an entry of vitrine dead list.
type deadLetter struct {
	ID     string          `json:"event_id"`
	Code   string          `json:"code"`
	Image  event.ImageDead `json:"image"`
	Record struct{ Topic string }
}

// listDead runs vitrine dead list.
func (s *system) listDead(args ...string) (found []deadLetter) {
	s.t.Helper()
	out, err := s.stdout(append([]string{"dead", "list", "-o", "json"}, args...)...)
	var list struct {
		Dead  []deadLetter
		Total int
	}
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || list.Total < len(list.Dead) {
		s.t.Fatalf("dead list: %v\n%s", err, out)
	}
	return list.Dead
}

// replay runs vitrine dead replay and checks its exit code and that its output contains all of texts.
func (s *system) replay(ok bool, args []string, texts ...string) {
	s.t.Helper()
	out, err := cli(s.t, s.environ(), "vitrine", append([]string{"dead", "replay"}, args...)...)
	if (err == nil) != ok {
		s.t.Errorf("replay %v: %v\n%s", args, err, out)
	}
	for _, want := range texts {
		if !strings.Contains(out, want) {
			s.t.Errorf("the output of replay %v does not contain %q:\n%s", args, want, out)
		}
	}
}

// lateSource returns the URL of an image that does not exist until appear is called.
func (s *system) lateSource() (url string, appear func()) {
	const path = "/500x400/late.png"
	s.sources.SetAbsent(path, true)
	return s.sources.URL + path, func() { s.sources.SetAbsent(path, false) }
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	t.Run("images", testDeadLettersImages)
	t.Run("replay_with_other_pipeline", testDeadLettersReplayWithOtherPipeline)
	t.Run("undecodable_records", testDeadLettersUndecodableRecords)
	t.Run("errors", testDeadLettersErrors)
}

func testDeadLettersImages(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.start("worker")
	api := s.start("api")
	late, appear := s.lateSource()
	user := s.user()
	first := s.awaitSettled(s.post(user, late, s.sources.URL+"/"+imageserver.Text).ID)
	second := s.awaitSettled(s.post(user, late).ID)
	eventually(t, "all dead letters are listed", func() error {
		if n := len(s.listDead()); n != 3 {
			return fmt.Errorf("got %d, want 3", n)
		}
		return nil
	})
	listed := s.listDead("--product", fmt.Sprint(first.ID), "--code", "http_status", "--since", "1h")
	if len(listed) != 1 || listed[0].Image.ImageID != first.Images[0].ID || listed[0].Image.SourceURL != late {
		t.Fatalf("the first product's image is listed as %+v", listed)
	}
	if out, err := s.stdout("dead", "list", "--limit", "1"); err != nil || !strings.Contains(out, "2 older dead letters") ||
		strings.Count(out, "\n") != 3 {
		t.Errorf("got %v\n%s", err, out)
	}
	if others := append(s.listDead("--since", "1ns"), s.listDead("--undecodable")...); len(others) != 0 {
		t.Errorf("the filters return %+v", others)
	}
	if out, err := s.stdout("dead", "show", listed[0].ID); err != nil || !json.Valid([]byte(out)) ||
		!strings.Contains(out, late) || !strings.Contains(out, `"fence": 1`) {
		t.Errorf("show: %v\n%s", err, out)
	}

	s.replay(true, []string{"--all", "--code", "http_status", "--dry-run"}, "would be: 2 requested again")
	if p := s.awaitSettled(first.ID); p.Version != first.Version {
		t.Errorf("a dry run changed %+v to %+v", first, p)
	}
	appear()
	s.replay(true, []string{listed[0].ID}, listed[0].ID+"  requested again", "1 requested again, 0 sent again")
	if p := s.awaitSettled(first.ID); p.Images[0].Status != "ready" || p.Images[1].Status != "failed" {
		t.Errorf("after its replay the product is %+v", p)
	}
	s.replay(true, []string{listed[0].ID}, "nothing to do", "it has changed since", "0 requested again")
	s.replay(true, []string{"--all"}, "2 requested again", "1 nothing to do", "0 failed")
	if p := s.awaitSettled(second.ID); p.ImageStatus != "ready" {
		t.Errorf("after the replay of all the second product is %+v", p)
	}
	s.awaitUnsupported(2)
	out, err := s.stdout("images", "reprocess", "--code", "unsupported_format", "--all", "--admin", api.admin)
	if err != nil || !strings.Contains(out, "1 requested again, 0 skipped") {
		t.Errorf("by what they are: %v\n%s", err, out)
	}
	s.awaitUnsupported(3)
}

// awaitUnsupported waits until so many dead letters have the code unsupported_format.
func (s *system) awaitUnsupported(times int) {
	s.t.Helper()
	eventually(s.t, "the new failure is listed", func() error {
		if n := len(s.listDead("--code", "unsupported_format")); n != times {
			return fmt.Errorf("%d times, want %d", n, times)
		}
		return nil
	})
}

func testDeadLettersReplayWithOtherPipeline(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.start("worker")
	s.start("api")
	s.awaitSettled(s.post(s.user(), s.sources.URL+"/"+imageserver.Missing).ID)
	other := filepath.Join(s.dir, "other.yaml")
	if err := os.WriteFile(other, pipeline.Default().Document(), 0o600); err != nil {
		t.Fatal(err)
	}
	own := s.env["VITRINE_PIPELINE_FILE"]
	eventually(t, "the API reports its pipeline", func() error {
		_, err := s.stdout("pipeline", "status")
		return err
	})
	s.env["VITRINE_PIPELINE_FILE"] = other
	s.replay(false, []string{"--all"}, "the API has pipeline revision "+s.fileRevision(own), s.fileRevision(other))
	s.env["VITRINE_PIPELINE_FILE"] = own
	s.replay(true, []string{"--all"})
}

// fileRevision returns the pipeline revision of a file.
func (s *system) fileRevision(file string) string {
	s.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.revision(string(text))
}

func testDeadLettersUndecodableRecords(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.start("worker")
	publisher, topic := s.publisher(), s.kafkaConfig().Name(event.TopicRequested)
	for range 2 {
		garbage := kafka.Record{Topic: topic, Key: []byte("7"), Value: []byte("garbage")}
		if err := publisher.Resend(t.Context(), garbage); err != nil {
			t.Fatal(err)
		}
	}
	// A record that an older version could not decode, the same record truncated, and a record of a foreign topic.
	decodable := event.New(uuid.NewString(), "7", event.ImageRequested{ProductID: 7, ImageID: 9, PipelineHash: "decodable"})
	undecodable := event.Undecodable{Reason: "too new", Topic: topic, Headers: decodable.Headers(), Payload: decodable.Body}
	truncated, foreign := undecodable, undecodable
	truncated.Truncated, foreign.Topic = true, s.kafkaConfig().Name("billing")
	publishDead(t, publisher, undecodable, truncated, foreign)
	eventually(t, "all dead letters are listed", func() error {
		if n := len(s.listDead("--undecodable")); n != 5 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	garbage := s.listDead("--undecodable", "--product", "7")[0]
	if out, err := s.stdout("dead", "show", garbage.ID); err != nil || !strings.Contains(out, `"record"`) {
		t.Errorf("show: %v\n%s", err, out)
	}
	s.replay(true, []string{"--all", "--undecodable"}, "1 sent again", "4 skipped", "this version cannot decode it either",
		"its end is missing", "its topic is not one of Vitrine")
	if n := s.records(event.TopicRequested, "decodable"); n != 1 {
		t.Errorf("the topic has the record %d times, want 1", n)
	}
	s.replay(true, []string{"--all", "--undecodable", "--force"}, "2 sent again", "1 nothing to do", "2 skipped")
	if n := s.records(event.TopicRequested, "garbage"); n != 3 {
		t.Errorf("the topic has the garbage %d times, want 3", n)
	}
	eventually(t, "the garbage is a dead letter again", func() error {
		if n := len(s.listDead("--undecodable")); n != 6 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
}

// publishDead publishes undecodable records, and one event of another type, to the dead topic.
func publishDead(t *testing.T, publisher *kafka.Publisher, all ...event.Undecodable) {
	t.Helper()
	var messages []event.Message
	for _, body := range all {
		messages = append(messages, event.New(uuid.NewString(), "8", body))
	}
	stray := event.New(uuid.NewString(), "8", event.ProductChanged{ProductID: 8, Version: 1})
	stray.Topic = event.TopicDead
	for _, err := range publisher.Publish(t.Context(), append(messages, stray)) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func testDeadLettersErrors(t *testing.T) {
	t.Parallel()
	unreachable := []string{
		"VITRINE_KAFKA_BROKERS=127.0.0.1:1", "VITRINE_POSTGRES_DSN=postgres://absent@127.0.0.1:1/x",
		"VITRINE_REDIS_ADDRS=127.0.0.1:1",
	}
	for _, c := range []struct {
		want string
		env  []string
		args []string
	}{
		{"cannot be reached", unreachable, []string{"list"}},
		{"cannot be reached", unreachable, []string{"replay", "--all", "--dry-run"}},
		{"the database cannot be reached", unreachable, []string{"replay", "--all"}},
		{"VITRINE_POSTGRES_DSN", nil, []string{"replay", "--all"}},
		{"table or json", nil, []string{"list", "-o", "xml"}},
		{"--limit", nil, []string{"list", "--limit", "0"}},
		{"--since", nil, []string{"list", "--since", "-1h"}},
		{"--since", nil, []string{"replay", "--all", "--since", "-1h"}},
		{"give events, or --all", nil, []string{"replay"}},
		{"not both", nil, []string{"replay", "--all", "x"}},
		{"filters go with --all", nil, []string{"replay", "x", "--code", "timeout"}},
		{"--rate", nil, []string{"replay", "--all", "--rate", "0"}},
	} {
		if out, err := cli(t, c.env, "vitrine", append([]string{"dead"}, c.args...)...); err == nil ||
			!strings.Contains(out, c.want) {
			t.Errorf("dead %v: got %v, want %q in\n%s", c.args, err, c.want, out)
		}
	}
	s := newSystem(t, nil)
	if out, err := s.stdout("dead", "show", "nowhere"); err == nil {
		t.Errorf("show of an unknown event succeeds:\n%s", out)
	}
	s.replay(false, []string{"nowhere"}, "there is no dead letter nowhere")
	if out, err := s.stdout("dead", "list"); err != nil || out != "" {
		t.Errorf("an empty list: %v\n%s", err, out)
	}
}
