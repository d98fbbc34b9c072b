package port

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestCandidates(t *testing.T) {
	t.Parallel()
	const bus = 10000
	for name, row := range map[string]struct {
		ephemeral span
		distances []int
		low, high int // of what is wanted
		count     int
	}{
		"linux":                   {span{32768, 60999}, nil, first, last, 22768 + 4536},
		"linux_with_a_companion":  {span{32768, 60999}, []int{bus}, first, 22767, 12768},
		"macos":                   {span{49152, 65535}, nil, first, 49151, 39152},
		"nothing_is_outside":      {span{1024, 65535}, nil, first, last, 55536},
		"companion_always_inside": {span{20000, 65535}, []int{bus}, first, 55535, 45536},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := candidates(row.ephemeral, row.distances)
			if len(got) != row.count || got[0] != row.low || got[len(got)-1] != row.high {
				t.Errorf("got %d ports, %d to %d; want %d, %d to %d",
					len(got), got[0], got[len(got)-1], row.count, row.low, row.high)
			}
		})
	}
}

func TestEphemeralRange(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		text string
		want span
	}{
		"as_linux_writes_it": {"20000\t30000\n", span{20000, 30000}},
		"not_a_range":        {"many\n", span{32768, 65535}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "range")
			if err := os.WriteFile(file, []byte(row.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := ephemeralRange(file); got != row.want {
				t.Errorf("got %v, want %v", got, row.want)
			}
		})
	}
	t.Run("no_file", func(t *testing.T) {
		t.Parallel()
		if got, want := ephemeralRange(filepath.Join(t.TempDir(), "none")), (span{32768, 65535}); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestTake(t *testing.T) {
	t.Parallel()
	t.Run("companion_in_use_leaves_no_lock", func(t *testing.T) {
		t.Parallel()
		r, err := Reserve(1)
		if err != nil {
			t.Fatal(err)
		}
		r.Release()
		listener, err := net.Listen("tcp", local(r.Port+1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := take(r.Port, 1); err == nil {
			t.Error("got a reservation although its companion is in use")
		}
		listener.Close()
		second, err := take(r.Port, 1)
		if err != nil {
			t.Fatal(err)
		}
		second.Release()
		second.Release()
	})
	t.Run("lock_file_without_directory", func(t *testing.T) {
		t.Parallel()
		if _, err := lock(filepath.Join(t.TempDir(), "none", "1")); err == nil {
			t.Error("got no error")
		}
	})
	t.Run("lock_directory_without_parent", func(t *testing.T) {
		t.Parallel()
		if err := createLockDir(filepath.Join(t.TempDir(), "none", "dir")); err == nil {
			t.Error("got no error")
		}
	})
	t.Run("lock_directory_is_for_all_users", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "dir")
		for range 2 { // created, then found
			if err := createLockDir(dir); err != nil {
				t.Fatal(err)
			}
		}
		if info, err := os.Stat(dir); err != nil || info.Mode() != os.ModeDir|os.ModeSticky|0o777 {
			t.Errorf("got %v, error %v; want the mode of /tmp", info.Mode(), err)
		}
	})
}
