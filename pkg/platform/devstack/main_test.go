package devstack_test

import (
	"testing"

	"vitrine.io/pkg/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
