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
	least := time.Hour
	for range 10 { // what else the process does only adds
		before := processorTime(t)
		<-time.After(300 * time.Millisecond)
		if least = min(least, processorTime(t)-before); least < 100*time.Millisecond {
			return
		}
	}
	t.Fatalf("an idle poller used %s of processor time", least)
}

func processorTime(t *testing.T) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
