package event_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"vitrine.io/pkg/foundation/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const requested = `{"product_id":7,"image_id":21,"source_url":"https://shop.example/a.jpg","pipeline_hash":"abc"}`

// request is a sound message, for tests to spoil.
func request(body string) event.Message {
	return event.Message{Type: event.TypeImageRequested, Version: event.Version, Body: []byte(body)}
}

func TestEveryTopicIsListedOnce(t *testing.T) {
	t.Parallel()
	got := event.Topics()
	if want := []string{event.TopicRequested, event.TopicChanged, event.TopicDead}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, c := range contract() {
		if !slices.Contains(got, c.message.Topic) {
			t.Errorf("%s goes to %s, which nobody makes", c.message.Type, c.message.Topic)
		}
	}
}

func TestAMessageSurvivesKafka(t *testing.T) {
	t.Parallel()
	for _, trace := range []string{"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"} {
		want := event.New("id-1", event.Key(7), event.ProductChanged{ProductID: 7, Version: 3})
		want.Traceparent = trace
		headers := want.Headers()
		if _, has := headers[event.HeaderTraceparent]; has != (trace != "") {
			t.Errorf("trace %q gives the headers %v", trace, headers)
		}
		got, err := event.FromRecord(want.Topic, []byte(want.Key), want.Body, headers)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestARecordNeedsItsHeaders(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(map[string]string){
		"no id":                        func(h map[string]string) { delete(h, event.HeaderID) },
		"no type":                      func(h map[string]string) { delete(h, event.HeaderType) },
		"no version":                   func(h map[string]string) { delete(h, event.HeaderVersion) },
		"version that is a word":       func(h map[string]string) { h[event.HeaderVersion] = "new" },
		"version zero":                 func(h map[string]string) { h[event.HeaderVersion] = "0" },
		"version that fits no integer": func(h map[string]string) { h[event.HeaderVersion] = strings.Repeat("9", 30) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			headers := event.New("id-1", "7", event.ProductChanged{ProductID: 7, Version: 3}).Headers()
			spoil(headers)
			got, err := event.FromRecord(event.TopicChanged, []byte("7"), []byte("{}"), headers)
			if err == nil || !strings.Contains(err.Error(), "event-") || !reflect.DeepEqual(got, event.Message{}) {
				t.Errorf("got %+v and %v, want only an error that names the header", got, err)
			}
		})
	}
}

func TestABodyThatCannotBeReadIsAnError(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"nothing":               {"", "image.requested body: "},
		"half an object":        {requested[:20], "image.requested body: "},
		"null":                  {" null", "null is not an object"},
		"a list":                {"[]", "image.requested body: "},
		"text":                  {`"x"`, "image.requested body: "},
		"two objects":           {requested + requested, "after top-level value"},
		"a brace too many":      {requested + " }", "after top-level value"},
		"a number with a point": {strings.Replace(requested, ":7,", ":7.5,", 1), "product_id"},
		"a number as text":      {strings.Replace(requested, ":7,", `:"7",`, 1), "product_id"},
		"a number beyond int64": {strings.Replace(requested, ":7,", ":9223372036854775808,", 1), "product_id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := event.Decode[event.ImageRequested](request(c.body))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	empty := event.Message{Type: event.TypeUndecodable, Version: 1, Body: []byte("null")}
	if _, err := event.Decode[event.Undecodable](empty); err == nil {
		t.Error("null is accepted where no field is required")
	}
}

func TestABodyWithoutItsIdsIsAnError(t *testing.T) {
	t.Parallel()
	for name, decode := range map[string]func() error{
		"request without product":  decoding(event.ImageRequested{ImageID: 1, PipelineHash: "x"}),
		"request without picture":  decoding(event.ImageRequested{ProductID: 1, PipelineHash: "x"}),
		"request without pipeline": decoding(event.ImageRequested{ProductID: 1, ImageID: 1}),
		"request below one":        decoding(event.ImageRequested{ProductID: -1, ImageID: 1, PipelineHash: "x"}),
		"change without product":   decoding(event.ProductChanged{Version: 1}),
		"change without version":   decoding(event.ProductChanged{ProductID: 1}),
		"death without product":    decoding(event.ImageDead{ImageID: 1}),
		"death without picture":    decoding(event.ImageDead{ProductID: 1}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := decode(); err == nil || !strings.Contains(err.Error(), "required") {
				t.Errorf("got %v, want what is required", err)
			}
		})
	}
	if err := decoding(event.Undecodable{})(); err != nil {
		t.Errorf("an undecodable record requires %v", err)
	}
}

func decoding[B event.Body](body B) func() error {
	return func() error {
		_, err := event.Decode[B](event.New("id-1", "", body))
		return err
	}
}

func TestAReaderAcceptsWhatOlderAndKinderWritersSend(t *testing.T) {
	t.Parallel()
	want := event.ImageRequested{ProductID: 7, ImageID: 21, SourceURL: "https://shop.example/a.jpg", PipelineHash: "abc"}
	for name, body := range map[string]string{
		"as it is":                 requested,
		"with a field added later": strings.Replace(requested, "{", `{"priority":{"level":[1,2]},`, 1),
		"spread over lines":        strings.ReplaceAll(requested, ",", "\n , ") + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := event.Decode[event.ImageRequested](request(body)); err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

func TestAReaderRefusesANewerVersionAndAnotherType(t *testing.T) {
	t.Parallel()
	newer := request(requested)
	newer.Version++
	_, err := event.Decode[event.ImageRequested](newer)
	if err == nil || !strings.Contains(err.Error(), "version 2 is newer than 1") {
		t.Errorf("got %v, want that version 2 is newer", err)
	}
	_, err = event.Decode[event.ImageDead](request(requested))
	if err == nil || !strings.Contains(err.Error(), `not "image.dead"`) {
		t.Errorf("got %v, want that it is another type", err)
	}
}

func TestTheLargestUndecodableRecordFitsIntoAMessage(t *testing.T) {
	t.Parallel()
	const limit = 1_000_000 // a little below Kafka's default of 1,048,588 bytes with headers and key
	m := event.New("id-1", "", event.Undecodable{
		Reason: strings.Repeat("r", 1000), Topic: event.TopicRequested, Headers: map[string]string{"h": strings.Repeat("h", 1000)},
		Payload: make([]byte, event.MaxPayload), Truncated: true,
	})
	if got := len(m.Body); got > limit {
		t.Errorf("got %d bytes, want at most %d", got, limit)
	}
}

// unspeakable is a body only by what it embeds, and cannot be encoded.
type unspeakable struct {
	event.ImageRequested
	Never chan int
}

func TestABodyThatCannotBeEncodedIsADefect(t *testing.T) {
	t.Parallel()
	defer func() {
		if got, _ := recover().(string); !strings.Contains(got, "unspeakable cannot be encoded") {
			t.Errorf("got %q, want a panic that names the body's type", got)
		}
	}()
	event.New("id-1", "", unspeakable{})
}

func TestTraceID(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ traceparent, want string }{
		"four_parts": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0af7651916cd43dd8448eb211c80319c"},
		"empty":      {"", ""},
		"two_parts":  {"x-y", ""},
		"five_parts": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := event.TraceID(c.traceparent); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
