package filestore_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// unsynchronised returns how many pages of a file the system has that the disk has not.
func unsynchronised(t *testing.T, path string) uint64 {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var c unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &c, 0); errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("this system does not say what is synchronised: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	return c.Dirty + c.Writeback
}

// When a change is acknowledged, the system holds nothing of the file that the disk has
// not: the disk has been asked, and has answered.
func TestSynchronised(t *testing.T) {
	control := filepath.Join(t.TempDir(), "control")
	if err := os.WriteFile(control, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if unsynchronised(t, control) == 0 {
		t.Skip("this file system does not say what is synchronised")
	}
	path := file(t)
	s := open(t, path)
	var revision uint64
	for n := range 200 {
		next, err := s.Put(t.Context(), benchKey(0), make([]byte, n), revision)
		if err != nil {
			t.Fatal(err)
		}
		revision = next
		if pages := unsynchronised(t, path); pages > 0 {
			t.Fatalf("after change %d, %d pages are not on the disk", n, pages)
		}
	}
	if err := s.Delete(t.Context(), benchKey(0), revision); err != nil {
		t.Fatal(err)
	}
	if pages := unsynchronised(t, path); pages > 0 {
		t.Fatalf("after a deletion, %d pages are not on the disk", pages)
	}
}
