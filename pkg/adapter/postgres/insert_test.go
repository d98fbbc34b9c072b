package postgres_test

import (
	"testing"

	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/storetest"
)

func TestInsert(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "nul_in_text_is_invalid", run: nulInText},
	})
}

func nulInText(f *fixture) {
	draft := f.Draft(1)
	draft.Name = "a\x00b"
	_, err := f.store.Insert(f.Context(), draft, storetest.Silent)
	f.WantKind(err, fault.Invalid, "a NUL in the name")
	draft = f.Draft(1)
	draft.Images[0].SourceURL = "https://example.com/\x00"
	_, err = f.store.Insert(f.Context(), draft, storetest.Silent)
	f.WantKind(err, fault.Invalid, "a NUL in a source")
}
