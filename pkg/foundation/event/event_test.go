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

// request returns an image.requested message with the body.
func request(body string) event.Message {
	return event.Message{Type: event.TypeImageRequested, Version: event.Version, Body: []byte(body)}
}

func TestTopics(t *testing.T) {
	t.Parallel()
	got := event.Topics()
	want := []string{event.TopicRequested, event.TopicChanged, event.TopicDead, event.TopicBackfill}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, c := range contract() {
		if !slices.Contains(got, c.message.Topic) {
			t.Errorf("%s goes to %s, which Topics does not list", c.message.Type, c.message.Topic)
		}
	}
}

func TestFromRecord(t *testing.T) {
	t.Parallel()
	t.Run("round_trip", testFromRecordRoundTrip)
	t.Run("wrong_headers", testFromRecordWrongHeaders)
}

func testFromRecordRoundTrip(t *testing.T) {
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

func testFromRecordWrongHeaders(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(map[string]string){
		"no_id":             func(h map[string]string) { delete(h, event.HeaderID) },
		"no_type":           func(h map[string]string) { delete(h, event.HeaderType) },
		"no_version":        func(h map[string]string) { delete(h, event.HeaderVersion) },
		"version_is_a_word": func(h map[string]string) { h[event.HeaderVersion] = "new" },
		"version_zero":      func(h map[string]string) { h[event.HeaderVersion] = "0" },
		"version_overflows": func(h map[string]string) { h[event.HeaderVersion] = strings.Repeat("9", 30) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			headers := event.New("id-1", "7", event.ProductChanged{ProductID: 7, Version: 3}).Headers()
			change(headers)
			got, err := event.FromRecord(event.TopicChanged, []byte("7"), []byte("{}"), headers)
			if err == nil || !strings.Contains(err.Error(), "event-") || !reflect.DeepEqual(got, event.Message{}) {
				t.Errorf("got %+v and %v, want only an error that names the header", got, err)
			}
		})
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	t.Run("malformed_body", testDecodeMalformedBody)
	t.Run("missing_ids", testDecodeMissingIDs)
	t.Run("accepted_variants", testDecodeAcceptedVariants)
	t.Run("newer_version_or_other_type", testDecodeNewerVersionOrOtherType)
}

func testDecodeMalformedBody(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"empty":            {"", "image.requested body: "},
		"half_an_object":   {requested[:20], "image.requested body: "},
		"null":             {" null", "null is not an object"},
		"list":             {"[]", "image.requested body: "},
		"string":           {`"x"`, "image.requested body: "},
		"two_objects":      {requested + requested, "after top-level value"},
		"trailing_brace":   {requested + " }", "after top-level value"},
		"fraction":         {strings.Replace(requested, ":7,", ":7.5,", 1), "product_id"},
		"number_as_string": {strings.Replace(requested, ":7,", `:"7",`, 1), "product_id"},
		"number_overflows": {strings.Replace(requested, ":7,", ":9223372036854775808,", 1), "product_id"},
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

func testDecodeMissingIDs(t *testing.T) {
	t.Parallel()
	for name, decode := range map[string]func() error{
		"request_without_product":  decoding(event.ImageRequested{ImageID: 1, PipelineHash: "x"}),
		"request_without_image":    decoding(event.ImageRequested{ProductID: 1, PipelineHash: "x"}),
		"request_without_pipeline": decoding(event.ImageRequested{ProductID: 1, ImageID: 1}),
		"request_with_negative_id": decoding(event.ImageRequested{ProductID: -1, ImageID: 1, PipelineHash: "x"}),
		"backfill_without_its_id":  decoding(event.ImageBackfill{ProductID: 1, ImageID: 1, PipelineHash: "x"}),
		"canary_without_backfill":  decoding(event.ImageCanary{ProductID: 1, ImageID: 1, PipelineHash: "x"}),
		"backfill_without_hash":    decoding(event.ImageBackfill{ProductID: 1, ImageID: 1, BackfillID: 1}),
		"change_without_product":   decoding(event.ProductChanged{Version: 1}),
		"change_without_version":   decoding(event.ProductChanged{ProductID: 1}),
		"dead_without_product":     decoding(event.ImageDead{ImageID: 1}),
		"dead_without_image":       decoding(event.ImageDead{ProductID: 1}),
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

func testDecodeAcceptedVariants(t *testing.T) {
	t.Parallel()
	want := event.ImageRequested{ProductID: 7, ImageID: 21, SourceURL: "https://shop.example/a.jpg", PipelineHash: "abc"}
	for name, body := range map[string]string{
		"unchanged":     requested,
		"unknown_field": strings.Replace(requested, "{", `{"priority":{"level":[1,2]},`, 1),
		"whitespace":    strings.ReplaceAll(requested, ",", "\n , ") + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := event.Decode[event.ImageRequested](request(body)); err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

func testDecodeNewerVersionOrOtherType(t *testing.T) {
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

func TestNew(t *testing.T) {
	t.Parallel()
	t.Run("largest_undecodable_fits", testNewLargestUndecodableFits)
	t.Run("unencodable_body_panics", testNewUnencodableBodyPanics)
}

func testNewLargestUndecodableFits(t *testing.T) {
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

// unencodable is a Body by embedding one, and cannot be encoded.
type unencodable struct {
	event.ImageRequested
	Never chan int
}

func testNewUnencodableBodyPanics(t *testing.T) {
	t.Parallel()
	defer func() {
		if got, _ := recover().(string); !strings.Contains(got, "unencodable cannot be encoded") {
			t.Errorf("got %q, want a panic that names the body's type", got)
		}
	}()
	event.New("id-1", "", unencodable{})
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
