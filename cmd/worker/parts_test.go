package main

import (
	"context"
	"errors"
	"testing"
)

// fakeBucket returns its error to a ping.
type fakeBucket struct{ err error }

func (b fakeBucket) Ping(context.Context) error { return b.err }

func TestPingBuckets(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	for name, c := range map[string]struct {
		renditions, originals, want error
		keep                        bool
	}{
		"both_are_there":                       {keep: true},
		"renditions_are_away":                  {renditions: away, want: away},
		"originals_are_away_and_kept":          {originals: away, want: away, keep: true},
		"originals_are_away_and_none_are_kept": {originals: away},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := pingBuckets(t.Context(), fakeBucket{c.renditions}, fakeBucket{c.originals}, c.keep)
			if !errors.Is(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
