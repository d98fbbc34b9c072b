package lifecycle_test

import (
	"testing"
	"time"

	"vitrine.io/pkg/lifecycle"
)

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		cfg  lifecycle.Config
		want int
	}{
		{lifecycle.Config{Delay: 0, Grace: time.Second}, 0},
		{lifecycle.Config{Delay: -1, Grace: time.Second}, 1},
		{lifecycle.Config{Delay: time.Second, Grace: time.Second}, 1},
		{lifecycle.Config{Delay: -1, Grace: -1}, 2},
	} {
		if got := row.cfg.Validate(); len(got) != row.want {
			t.Errorf("%+v: got %v, want %d wrong fields", row.cfg, got, row.want)
		}
	}
}
