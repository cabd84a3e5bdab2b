//go:build !race

package engine

import "testing"

// A delivery that finds a place in its connection's window allocates nothing. The race
// detector makes pools lose things on purpose.
func TestDeliveryWithinTheWindowAllocatesNothing(t *testing.T) {
	s, g := fanout(t, 100)
	conns := g.snapshot()
	for _, c := range conns {
		c.window = &window{size: 8, room: 8}
	}
	m := &Message{Kind: KindData, Group: "g", Payload: Payload{Data: make([]byte, 128)}}
	publish := func() {
		for range 8 {
			s.post(entry{op: opPublish, group: g, message: m})
		}
		turn(s)
		for _, c := range conns {
			if c.window.room != 0 || c.waiting() != 0 {
				t.Fatalf("%d places are free, and %d deliveries wait", c.window.room, c.waiting())
			}
			s.post(entry{op: opAcknowledge, conn: c, n: 8})
		}
		turn(s)
	}
	publish()
	if n := testing.AllocsPerRun(100, publish); n > 0 {
		t.Errorf("%v allocations for 800 deliveries", n)
	}
}
