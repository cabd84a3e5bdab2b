package filestore_test

import (
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fanfare/fanfare/authn/identity/filestore"
)

const benchKeys = 100_000

func benchKey(n int) string { return fmt.Sprintf("user.%026d", n) }

// parallel calls do with each number below n, from so many goroutines.
func parallel(tb testing.TB, callers, n int, do func(int) error) {
	tb.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// filled returns a store of benchKeys keys, all at the revision of their number.
func filled(b *testing.B) (s *filestore.Store, revisions []uint64) {
	s = open(b, filepath.Join(b.TempDir(), "users.db"))
	revisions = make([]uint64, benchKeys)
	parallel(b, 1024, benchKeys, func(i int) (err error) {
		revisions[i], err = s.Put(b.Context(), benchKey(i), []byte{1, 1}, 0)
		return err
	})
	return s, revisions
}

// BenchmarkGet is what a store adds to the check of a token.
func BenchmarkGet(b *testing.B) {
	s, _ := filled(b)
	get := func(i int) {
		if _, _, err := s.Get(b.Context(), benchKey(i%benchKeys)); err != nil {
			b.Error(err)
		}
	}
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			get(i)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i += 7 {
				get(i)
			}
		})
	})
}

// BenchmarkPut is what a change costs its caller, alone and beside others, and in a
// file whose keys have all been deleted.
func BenchmarkPut(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run("callers="+strconv.Itoa(callers), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "users.db"))
			put(b, s, callers)
		})
	}
	b.Run("callers=1/deleted="+strconv.Itoa(benchKeys), func(b *testing.B) {
		s, revisions := filled(b)
		parallel(b, 1024, benchKeys, func(i int) error { return s.Delete(b.Context(), benchKey(i), revisions[i]) })
		put(b, s, 1)
	})
}

// put has the callers change a key each.
func put(b *testing.B, s *filestore.Store, callers int) {
	before := s.Stats()
	b.ResetTimer()
	parallel(b, callers, callers, func(c int) (err error) {
		var revision uint64
		for range (b.N + callers - 1) / callers {
			if revision, err = s.Put(b.Context(), benchKey(benchKeys+c), []byte{1, 1}, revision); err != nil {
				return err
			}
		}
		return nil
	})
	st := s.Stats()
	b.ReportMetric(float64(st.Changes-before.Changes)/float64(st.Commits-before.Commits), "changes/commit")
}
