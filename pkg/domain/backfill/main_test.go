package backfill_test

import (
	"testing"

	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }
