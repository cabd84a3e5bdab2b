package filestore_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/identity/filestore"
	"github.com/fanfare/fanfare/authn/identity/storetest"
)

func open(tb testing.TB, path string) *filestore.Store {
	tb.Helper()
	s, err := filestore.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func file(tb testing.TB) string { return filepath.Join(tb.TempDir(), "users.db") }

func TestStore(t *testing.T) {
	storetest.TestStore(t, func(t *testing.T) identity.Store { return open(t, file(t)) })
}

// What was put is there when the file is opened again, at its revision.
func TestReopen(t *testing.T) {
	path := file(t)
	s := open(t, path)
	first, err := s.Put(t.Context(), "a", []byte("one"), 0)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := s.Put(t.Context(), "b", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "b", gone); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	if value, revision, err := s.Get(t.Context(), "a"); err != nil || string(value) != "one" || revision != first {
		t.Errorf("%q at %d, %v", value, revision, err)
	}
	if again, err := s.Put(t.Context(), "b", nil, 0); err != nil || again <= gone {
		t.Errorf("revision %d after %d, %v", again, gone, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// Writers at the same time share commits, and a lone one waits for none.
func TestSharedCommits(t *testing.T) {
	s := open(t, file(t))
	if _, err := s.Put(t.Context(), "alone", nil, 0); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Commits != 1 || st.Changes != 1 || st.Bytes == 0 {
		t.Errorf("%+v", st)
	}
	const writers, each = 64, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			key, revision := "k."+strings.Repeat("x", w), uint64(0)
			for range each {
				next, err := s.Put(t.Context(), key, nil, revision)
				if err != nil {
					t.Error(err)
				}
				revision = next
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Changes != 1+writers*each || st.Commits > 1+writers*each/2 {
		t.Errorf("%d changes took %d commits", st.Changes, st.Commits)
	}
}

func TestOpenRefusals(t *testing.T) {
	path := file(t)
	open(t, path)
	if _, err := filestore.Open(path); err == nil || !strings.Contains(err.Error(), "another process has") {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := filestore.Open(filepath.Join(path, "x")); err == nil {
		t.Error("a file is no folder")
	}
	other := file(t)
	if err := os.WriteFile(other, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := filestore.Open(other); err == nil {
		t.Error("any file is taken for a store")
	}
}
