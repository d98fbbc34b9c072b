package lifecycle_test

import (
	"slices"
	"testing"
	"time"

	"vitrine.io/pkg/foundation/lifecycle"
)

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cfg  lifecycle.Config
		want []string
	}{
		{lifecycle.Config{Delay: 3 * time.Second, Grace: time.Minute}, nil},
		{lifecycle.Config{Grace: time.Second}, nil},
		{lifecycle.Config{Delay: time.Second, Grace: time.Second}, []string{"GRACE"}},
		{lifecycle.Config{Delay: -1, Grace: -1}, []string{"DELAY", "GRACE"}},
	} {
		var got []string
		for _, f := range c.cfg.Validate() {
			got = append(got, f.Path)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %v, want %v", c.cfg, got, c.want)
		}
	}
}
