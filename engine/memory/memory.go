// Package memory sets the pace of a process's garbage collection: rare while a small
// heap is busy, and once when it has become idle, after which the memory that is
// free goes back to the operating system.
//
// By itself the Go runtime does neither. A process with little live memory collects
// each few megabytes, which costs a server with many short connections a tenth of
// its time. And a process that has become idle keeps the garbage of its last busy
// time, and free memory of the size of its heap.
//
// The process belongs to its main package, so nothing in this module calls [Run] but
// the programs below cmd and bench. A program that embeds an engine may:
//
//	go memory.Run(ctx, nil)
package memory

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Options are the settings of [Run]. Nil and zero mean the defaults.
type Options struct {
	// Quiet is how long a process must have been idle before its memory is
	// collected. Default 6 s.
	Quiet time.Duration
	// Interval is the least time between two such collections. Default 20 s.
	Interval time.Duration
	// IdleRate is how many bytes a second an idle process may allocate. Default 1 MiB.
	IdleRate int
	// Worth is how many bytes of garbage and of free memory make a collection worth
	// its cost. Default 2 MiB.
	Worth int
	// Headroom is how much a heap may grow beyond its live memory before it is
	// collected; a larger heap may grow by as much as GOGC says. Default 8 MiB;
	// negative, or with GOGC in the environment: nothing is changed.
	Headroom int
}

func (o *Options) withDefaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	if d.Quiet <= 0 {
		d.Quiet = 6 * time.Second
	}
	if d.Interval <= 0 {
		d.Interval = 20 * time.Second
	}
	if d.IdleRate <= 0 {
		d.IdleRate = 1 << 20
	}
	if d.Worth <= 0 {
		d.Worth = 2 << 20
	}
	if d.Headroom == 0 {
		d.Headroom = 8 << 20
	}
	return d
}

// looksPerQuiet is how often a process is looked at before it counts as idle.
const looksPerQuiet = 3

// Run sets the pace until ctx ends, and then restores what it changed. It must not
// be called again before it has returned.
func Run(ctx context.Context, o *Options) {
	set := set(o.withDefaults())
	if _, own := os.LookupEnv("GOGC"); !own && set.Headroom > 0 {
		defer set.giveRoom()()
	}
	tick := time.NewTicker(set.Quiet / looksPerQuiet)
	defer tick.Stop()
	w := watch{o: Options(set), last: look(), at: time.Now()}
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if w.idle(now, look()) {
				runtime.GC()         // after one collection pools still hold what is in them
				debug.FreeOSMemory() // which collects first
				w.collected(now, look())
			}
		}
	}
}

// set are the options in force.
type set Options

// giveRoom lets the heap grow by Headroom, whatever is live, until stop is called.
func (s *set) giveRoom() (stop func()) {
	base := debug.SetGCPercent(100)
	debug.SetGCPercent(base)
	if base < 0 {
		return func() {} // collections are off
	}
	percent := func() int {
		var live = []metrics.Sample{{Name: liveHeap}}
		metrics.Read(live)
		return percentFor(base, s.Headroom, int(live[0].Value.Uint64()))
	}
	done := make(chan struct{})
	adjusted := make(chan struct{})
	go func() { // ends with stop
		defer close(adjusted)
		defer func() { debug.SetGCPercent(base) }()
		now := base
		for {
			if want := percent(); want != now {
				now = want
				debug.SetGCPercent(now)
			}
			select {
			case <-afterCollection():
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-adjusted
	}
}

// leastHeap is the least heap that the runtime collects at GOGC=100.
const leastHeap = 4 << 20

// percentFor returns what GOGC has to be for a heap with so many live bytes to grow
// by headroom; no less than base.
func percentFor(base, headroom, live int) int {
	return max(base, int(100*int64(headroom)/int64(max(live, leastHeap))))
}

// afterCollection returns a channel that is closed after the next collection.
func afterCollection() <-chan struct{} {
	done := make(chan struct{})
	marker := new(*int) // with a pointer, so that it shares its memory with nothing
	runtime.AddCleanup(marker, func(done chan struct{}) { close(done) }, done)
	return done
}

// The names of what is looked at.
const (
	allocated  = "/gc/heap/allocs:bytes"
	liveHeap   = "/gc/heap/live:bytes"
	objects    = "/memory/classes/heap/objects:bytes"
	unusedHeap = "/memory/classes/heap/unused:bytes"
	freeHeap   = "/memory/classes/heap/free:bytes"
)

// sample is what a process's memory looks like.
type sample struct {
	allocated uint64 // since the process began
	live      uint64 // as of the last collection
	held      uint64 // resident: objects, the gaps between them, and what is free
}

func look() sample {
	m := []metrics.Sample{{Name: allocated}, {Name: liveHeap}, {Name: objects}, {Name: unusedHeap}, {Name: freeHeap}}
	metrics.Read(m)
	v := func(i int) uint64 { return m[i].Value.Uint64() }
	return sample{allocated: v(0), live: v(1), held: v(2) + v(3) + v(4)}
}

// watch decides when a process is idle and has something to give back.
type watch struct {
	o     Options
	last  sample
	at    time.Time // of last
	quiet int       // looks in a row that saw little

	done  time.Time // when it was collected last; zero for never
	after sample    // what was left then
}

// idle takes note of s, as of now, and reports whether to collect.
func (w *watch) idle(now time.Time, s sample) bool {
	spent := now.Sub(w.at)
	if float64(s.allocated-w.last.allocated) > float64(w.o.IdleRate)*spent.Seconds() {
		w.quiet = 0
	} else {
		w.quiet++
	}
	w.last, w.at = s, now
	if w.quiet < looksPerQuiet || !w.done.IsZero() && now.Sub(w.done) < w.o.Interval {
		return false
	}
	worth := uint64(w.o.Worth)
	if !w.done.IsZero() && s.held < w.after.held+worth {
		return false // what the last collection left cannot be given back
	}
	return s.held > s.live+worth || s.allocated-w.after.allocated > worth
}

// collected notes what a collection left.
func (w *watch) collected(now time.Time, s sample) {
	w.done, w.after, w.last, w.at, w.quiet = now, s, s, now, 0
}
