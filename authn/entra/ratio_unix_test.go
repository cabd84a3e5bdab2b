//go:build unix

package entra_test

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"
)

// together has some goroutines do a number of pieces of work each, and returns
// how long that took and how much time of processors it took. The latter tells
// what a piece costs however busy the machine is.
func together(tb testing.TB, goroutines, pieces int, f func(n int)) (took, used time.Duration) {
	start, before := time.Now(), processors(tb)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for n := range pieces {
				f(g + n)
			}
		})
	}
	wg.Wait()
	return time.Since(start), processors(tb) - before
}

// processors returns how much of their time this process has used.
func processors(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAuthorizeRatio reports what proving a server costs in units of the bare
// RS256 over the same bytes, both measured by turns in the same run. It is to be
// at most 1.3, however many goroutines do so at once.
func BenchmarkAuthorizeRatio(b *testing.B) {
	p := newProvider()
	made := tokens(p)
	for _, name := range []string{"application", "user"} {
		authorize, bare := work(b, p, made[name])
		for _, goroutines := range []int{1, 2, 4, 8} {
			b.Run(fmt.Sprintf("token=%s/goroutines=%d", name, goroutines), func(b *testing.B) {
				const pieces = 100
				var took, used [2]time.Duration
				for b.Loop() {
					for i, f := range []func(int){authorize, bare} {
						t, u := together(b, goroutines, pieces, f)
						took[i] += t
						used[i] += u
					}
				}
				each := float64(b.N * goroutines * pieces)
				b.ReportMetric(0, "ns/op") // of both together
				b.ReportMetric(float64(took[0])/each, "ns/token")
				b.ReportMetric(float64(used[0])/each, "cpu-ns/token")
				b.ReportMetric(float64(used[0])/float64(used[1]), "x-bare-rs256")
			})
		}
	}
}
