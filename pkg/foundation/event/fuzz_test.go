package event_test

import (
	"maps"
	"reflect"
	"testing"

	"vitrine.io/pkg/foundation/event"
)

// What a broker delivers may be anything. It is refused, or it is a message that means the same when it is sent again.
func FuzzWhateverIsReadIsReadAgainTheSame(f *testing.F) {
	for _, c := range contract() {
		h := c.message.Headers()
		f.Add(h[event.HeaderID], h[event.HeaderType], h[event.HeaderVersion], h[event.HeaderTraceparent], c.message.Body)
	}
	f.Add("", "", "-1", "", []byte("null"))
	f.Add("id", event.TypeUndecodable, "+01", "", []byte(`{"payload":"","headers":{}}`))
	f.Fuzz(func(t *testing.T, id, kind, version, trace string, body []byte) {
		headers := map[string]string{
			event.HeaderID: id, event.HeaderType: kind, event.HeaderVersion: version, event.HeaderTraceparent: trace,
		}
		m, err := event.FromRecord(event.TopicRequested, []byte("7"), body, headers)
		if err != nil {
			return
		}
		again, err := event.FromRecord(m.Topic, []byte(m.Key), m.Body, m.Headers())
		if err != nil || !maps.Equal(again.Headers(), m.Headers()) || m.Version < 1 {
			t.Errorf("got %+v, %v, want %+v", again, err, m)
		}
		same[event.ImageRequested](t, m)
		same[event.ProductChanged](t, m)
		same[event.ImageDead](t, m)
		same[event.Undecodable](t, m)
	})
}

func same[B event.Body](t *testing.T, m event.Message) {
	t.Helper()
	want, err := event.Decode[B](m)
	if err != nil {
		return
	}
	sent := event.New(m.ID, m.Key, want)
	if sent.Type != m.Type {
		t.Errorf("a %s was read as %T", m.Type, want)
	}
	if got, err := event.Decode[B](sent); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}
