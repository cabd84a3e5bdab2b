package filestore

import (
	"path/filepath"
	"sync"
	"testing"
)

// What a reader sees, the disk has.
func TestGetShowsWhatTheDiskHas(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "users.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	revision, err := s.Put(t.Context(), "a", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				_, seen, err := s.Get(t.Context(), "a")
				if durable := s.durable.Load(); err != nil || seen > durable {
					t.Errorf("revision %d is seen when the disk has %d, %v", seen, durable, err)
					return
				}
			}
		})
	}
	for range 100 {
		if revision, err = s.Put(t.Context(), "a", nil, revision); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	readers.Wait()
}
