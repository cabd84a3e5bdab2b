package memory

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	const second = time.Second
	const mib = 1 << 20
	o := (*Options)(nil).withDefaults()
	type step struct {
		after     time.Duration // since the step before
		allocated uint64        // MiB since the step before
		held      uint64        // MiB
		live      uint64        // MiB
		want      bool
		left      uint64 // MiB held after a collection
	}
	for name, steps := range map[string][]step{
		"idle with garbage": {{2 * second, 1, 40, 10, false, 0}, {2 * second, 1, 40, 10, false, 0}, {2 * second, 1, 40, 10, true, 12}},
		"idle, nothing to give back": {
			{2 * second, 1, 11, 10, false, 0}, {2 * second, 0, 11, 10, false, 0}, {2 * second, 0, 11, 10, false, 0}, {60 * second, 0, 11, 10, false, 0},
		},
		"busy": {{2 * second, 100, 40, 10, false, 0}, {2 * second, 100, 40, 10, false, 0}, {2 * second, 100, 40, 10, false, 0}, {2 * second, 100, 40, 10, false, 0}},
		"busy once more before it counts as idle": {
			{2 * second, 1, 40, 10, false, 0}, {2 * second, 1, 40, 10, false, 0}, {2 * second, 100, 40, 10, false, 0}, {2 * second, 1, 40, 10, false, 0},
		},
		"once for each idle time": {
			{2 * second, 1, 40, 10, false, 0}, {2 * second, 1, 40, 10, false, 0}, {2 * second, 1, 40, 10, true, 20},
			{2 * second, 1, 20, 10, false, 0}, {2 * second, 0, 21, 10, false, 0}, {60 * second, 0, 21, 10, false, 0}, {60 * second, 0, 21, 10, false, 0},
		},
		"not again at once": {
			{2 * second, 1, 40, 10, false, 0}, {2 * second, 1, 40, 10, false, 0}, {2 * second, 1, 40, 10, true, 12},
			{2 * second, 1000, 40, 10, false, 0}, {2 * second, 1, 40, 10, false, 0}, {2 * second, 1, 40, 10, false, 0},
			{2 * second, 1, 40, 10, false, 0}, {12 * second, 1, 40, 10, true, 12},
		},
	} {
		now := time.Unix(1000, 0)
		var s sample
		w := watch{o: o, at: now}
		for i, st := range steps {
			now = now.Add(st.after)
			s.allocated += st.allocated * mib
			s.held, s.live = st.held*mib, st.live*mib
			if got := w.idle(now, s); got != st.want {
				t.Fatalf("%s: step %d: idle = %v, want %v", name, i+1, got, st.want)
			}
			if st.want {
				s.held = st.left * mib
				w.collected(now, s)
			}
		}
	}
}

func TestPercentFor(t *testing.T) {
	for _, test := range []struct{ base, headroom, live, want int }{
		{100, 32 << 20, 0, 800},
		{100, 32 << 20, 4 << 20, 800},
		{100, 32 << 20, 32 << 20, 100},
		{100, 32 << 20, 1 << 30, 100},
		{50, 32 << 20, 64 << 20, 50},
		{400, 32 << 20, 16 << 20, 400},
	} {
		if got := percentFor(test.base, test.headroom, test.live); got != test.want {
			t.Errorf("percentFor(%d, %d, %d) = %d, want %d", test.base, test.headroom, test.live, got, test.want)
		}
	}
}

var ballast [][]byte

// TestRun gives memory back that a busy time has left, and restores the pace.
func TestRun(t *testing.T) {
	t.Setenv("GOGC", "") // present: changes nothing
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	for range 64 {
		ballast = append(ballast, make([]byte, 1<<20))
	}
	ballast = nil
	held := look().held
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		Run(ctx, &Options{Quiet: 30 * time.Millisecond, Interval: time.Millisecond})
		close(ended)
	}()
	for deadline := time.Now().Add(30 * time.Second); look().held+32<<20 > held; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the process holds %d bytes, %d before", look().held, held)
		}
	}
	cancel()
	<-ended
}

// TestHeadroom changes the pace by what is live, and restores it.
func TestHeadroom(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	s := &set{Headroom: 1 << 30}
	stop := s.giveRoom()
	percent := func() uint64 {
		m := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(m)
		return m[0].Value.Uint64()
	}
	for deadline := time.Now().Add(30 * time.Second); percent() <= 100; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the pace has not changed")
		}
	}
	stop()
	if got := percent(); got != 100 {
		t.Errorf("GOGC is %d afterwards, want 100", got)
	}
}
