package netwire

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestIdle checks that a poller sleeps while nothing happens, and that a wire is
// what its kind should be.
func TestIdle(t *testing.T) {
	near, _ := pair(t)
	g := &Group{}
	w := g.New(near, newReader(-1))
	if _, ok := w.(*Descriptor); !ok {
		t.Fatalf("a plain TCP connection became a %T", w)
	}
	w.Start(nil)
	defer w.Close(false)
	before := processorTime(t)
	<-time.After(300 * time.Millisecond)
	if used := processorTime(t) - before; used > 100*time.Millisecond {
		t.Fatalf("an idle poller used %s of processor time", used)
	}
}

func processorTime(t *testing.T) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
