package event_test

import (
	"maps"
	"reflect"
	"testing"

	"vitrine.io/pkg/foundation/event"
)

// FuzzFromRecord decodes arbitrary records. Each returns an error, or a message that is equal after it is sent again.
func FuzzFromRecord(f *testing.F) {
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
		resent, err := event.FromRecord(m.Topic, []byte(m.Key), m.Body, m.Headers())
		if err != nil || !maps.Equal(resent.Headers(), m.Headers()) || m.Version < 1 {
			t.Errorf("got %+v, %v, want %+v", resent, err, m)
		}
		roundTrip[event.ImageRequested](t, m)
		roundTrip[event.ProductChanged](t, m)
		roundTrip[event.ImageDead](t, m)
		roundTrip[event.Undecodable](t, m)
	})
}

func roundTrip[B event.Body](t *testing.T, m event.Message) {
	t.Helper()
	want, err := event.Decode[B](m)
	if err != nil {
		return
	}
	sent := event.New(m.ID, m.Key, want)
	if sent.Type != m.Type {
		t.Errorf("a %s was decoded as %T", m.Type, want)
	}
	if got, err := event.Decode[B](sent); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}
