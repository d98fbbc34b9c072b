package event_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"vitrine.io/pkg/foundation/event"
)

var update = flag.Bool("update", false, "rewrite testdata: a changed file changes the format of messages")

// example is a message, the file with its expected form, and the function that decodes it.
type example struct {
	file    string
	message event.Message
	body    event.Body
	decode  func(event.Message) (event.Body, error)
}

func exampleOf[B event.Body](file, key string, body B) example {
	m := event.New("0199c3a2-7d1e-7c44-9a51-2f0c4b6d8e10", key, body)
	m.Traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	decode := func(m event.Message) (event.Body, error) { return event.Decode[B](m) }
	return example{file: file, message: m, body: body, decode: decode}
}

// contract returns a message for every body. No field is zero.
func contract() []example {
	const hash, source = "9f86d081884c7d659a2feaa0c55ad015", "https://shop.example/shoe.jpg?a=1&b=<2>"
	return []example{
		exampleOf("image.requested.v1.json", event.Key(7), event.ImageRequested{
			ProductID: 7, ImageID: 21, SourceURL: source, PipelineHash: hash,
		}),
		exampleOf("image.backfill.v1.json", event.Key(7), event.ImageBackfill{
			ProductID: 7, ImageID: 21, SourceURL: source, PipelineHash: hash, BackfillID: 5,
			Source: event.SourceOriginal,
		}),
		exampleOf("image.canary.v1.json", event.Key(7), event.ImageCanary{
			ProductID: 7, ImageID: 21, SourceURL: source, PipelineHash: hash, BackfillID: 5, Source: event.SourceOriginal,
		}),
		exampleOf("product.changed.v1.json", event.Key(7), event.ProductChanged{ProductID: 7, Version: 4, Deleted: true}),
		exampleOf("image.dead.v1.json", event.Key(7), event.ImageDead{
			ProductID: 7, ImageID: 21, FencingToken: 3, Code: "too_large", Detail: "more than 26214400 bytes", SourceURL: source,
			Attempts: 5, PipelineHash: hash,
		}),
		exampleOf("record.undecodable.v1.json", "", event.Undecodable{
			Reason: "header event-version: \"new\" is not a version", Topic: event.TopicRequested, Partition: 11, Offset: 1 << 40,
			Headers: map[string]string{"event-id": "x", "event-version": "new"}, Payload: []byte("\x00not JSON\xff"), Truncated: true,
		}),
	}
}

// record is the form of a message in testdata: its Kafka record.
type record struct {
	Topic   string            `json:"topic"`
	Key     string            `json:"key"`
	Headers map[string]string `json:"headers"`
	Body    json.RawMessage   `json:"body"`
}

func TestContract(t *testing.T) {
	t.Parallel()
	t.Run("testdata_is_unchanged", testContractTestdataIsUnchanged)
	t.Run("every_field_is_set", testContractEveryFieldIsSet)
}

func testContractTestdataIsUnchanged(t *testing.T) {
	t.Parallel()
	for _, c := range contract() {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			if *update {
				write(t, c)
			}
			stored := read(t, c.file)
			if c.message.Topic != stored.Topic || c.message.Key != stored.Key || !maps.Equal(c.message.Headers(), stored.Headers) {
				t.Errorf("got topic %s, key %q, headers %v, want %+v", c.message.Topic, c.message.Key, c.message.Headers(), stored)
			}
			if got, want := compact(t, c.message.Body), compact(t, stored.Body); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			m, err := event.FromRecord(stored.Topic, []byte(stored.Key), stored.Body, stored.Headers)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.decode(m); err != nil || !reflect.DeepEqual(got, c.body) {
				t.Errorf("got %+v, %v, want %+v", got, err, c.body)
			}
		})
	}
}

func testContractEveryFieldIsSet(t *testing.T) {
	t.Parallel()
	for _, c := range contract() {
		body := reflect.ValueOf(c.body)
		for i := range body.NumField() {
			if body.Field(i).IsZero() {
				t.Errorf("%s does not set %s", c.file, body.Type().Field(i).Name)
			}
		}
	}
}

func write(t *testing.T, c example) {
	t.Helper()
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // the body's own escapes stay as they are
	enc.SetIndent("", "  ")
	if err := enc.Encode(record{c.message.Topic, c.message.Key, c.message.Headers(), c.message.Body}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", c.file), text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) record {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatalf("%v; go test ./pkg/foundation/event -update writes it", err)
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func compact(t *testing.T, body []byte) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, body); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
