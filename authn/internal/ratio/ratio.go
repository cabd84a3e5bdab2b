// Package ratio is for benchmarks that say what a proof costs in units of the bare
// cryptography in it. A ratio of two things measured by turns means the same on
// every machine, as nanoseconds do not.
package ratio

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// pieces is how many pieces of work a goroutine does in one turn.
const pieces = 100

// Bench runs a benchmark for each of 1, 2, 4 and 8 goroutines that do one piece of
// work after the other, by turns of proof and of bare; n tells pieces apart. It
// reports, of the processors' time and not of the clock's, so that a busy machine
// makes no difference,
//
//	x-bare     a proof in units of bare
//	cpu-ns/op  a proof
//
// and as ns/op the clock's time by the number of proofs. A lock that goroutines
// wait for shows as cpu-ns/op that grow with their number, or ns/op that do not
// shrink with it up to the number of processors.
func Bench(b *testing.B, proof, bare func(n int)) {
	for _, goroutines := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			var of, ofBare spent
			for b.Loop() {
				of.add(goroutines, proof)
				ofBare.add(goroutines, bare)
			}
			each := float64(b.N * goroutines * pieces)
			b.ReportMetric(float64(of.clock)/each, "ns/op")
			b.ReportMetric(float64(of.processors)/each, "cpu-ns/op")
			b.ReportMetric(float64(of.processors)/float64(ofBare.processors), "x-bare")
		})
	}
}

// spent is the time that work took.
type spent struct{ clock, processors time.Duration }

// add does one turn of work.
func (s *spent) add(goroutines int, f func(n int)) {
	start, before := time.Now(), processors()
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for n := range pieces {
				f(g + n)
			}
		})
	}
	wg.Wait()
	s.processors += processors() - before
	s.clock += time.Since(start)
}
