package mqtt_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/fanfare/fanfare/engine"
)

// ping checks that the client gets a PINGRESP, and nothing before it.
func (c *client) ping() {
	c.t.Helper()
	c.packets("c0 ( )")
	c.want("d0 ( )")
}

// Only a PUBLISH of QoS 1 or 2 waits until the client has acknowledged others (MQTT 5.0
// sections 4.9 and 3.3.4): every other packet passes a window that is full, and the
// flow of QoS 2, which makes room in it, goes on.
func TestFullWindowHoldsNothingElse(t *testing.T) {
	s := serve(t, engine.Options{}, false)
	ctx := soon(t)
	hub := s.engine.Hub("chat")
	c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
	c.packets("10 ( 'MQTT' 05 02 003c ( 21 0001 ) 'ann' )")
	c.want(connack5)
	c.packets("82 ( 0001 ( ) 'two' 02 'one' 01 'zero' 00 )")
	c.want("90 ( 0001 ( ) 02 01 00 )")
	bo := s.enter(t, "bo")
	for i := range 3 {
		bo.packets(fmt.Sprintf("34 ( 'two' %04x ( ) \"%d\" ) 62 ( %04x )", i+1, i, i+1))
		bo.want(fmt.Sprintf("50 ( %04x )", i+1))
		bo.want(fmt.Sprintf("70 ( %04x )", i+1))
	}
	c.want("34 ( 'two' 0001 ( ) \"0\" )")
	c.ping()
	bo.packets("30 ( 'zero' ( ) \"z\" ) 32 ( 'zero' 0004 ( ) \"z\" )")
	c.want("30 ( 'zero' ( ) \"z\" )")
	c.want("30 ( 'zero' ( ) \"z\" )")
	c.packets("32 ( 'none' 0001 ( ) )")
	c.want("40 ( 0001 )")
	c.packets("34 ( 'none' 0002 ( ) )")
	c.want("50 ( 0002 )")
	c.packets("62 ( 0002 )")
	c.want("70 ( 0002 )")
	c.packets("82 ( 0002 ( ) 'more' 01 )")
	c.want("90 ( 0002 ( ) 01 )")
	c.packets("a2 ( 0003 ( ) 'more' )")
	c.want("b0 ( 0003 ( ) 00 )")
	for i := range 3 {
		id := fmt.Sprintf("%04x", i+1)
		c.packets("50 ( " + id + " )")
		c.want("62 ( " + id + " )")
		c.ping() // no other PUBLISH before the PUBCOMP
		c.packets("70 ( " + id + " )")
		if i < 2 {
			c.want(fmt.Sprintf("34 ( 'two' %04x ( ) \"%d\" )", i+2, i+1))
		}
	}
	bo.packets("32 ( 'one' 0005 ( ) \"1\" ) 32 ( 'one' 0006 ( ) \"2\" )")
	c.want("32 ( 'one' 0004 ( ) \"1\" )")
	c.ping()
	if err := hub.CloseConn(ctx, "ann", ""); err != nil {
		t.Fatal(err)
	}
	c.want("e0 ( 98 ( ) )")
	c.want("close 1000")
}

// More may wait for a client of 3.1.1, which has no receive maximum, than it may have
// unacknowledged: the flow goes on until all has come, once and in order.
func TestWindowOf311(t *testing.T) {
	const count = 900
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			s := serve(t, engine.Options{}, false)
			c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
			c.packets("10 ( 'MQTT' 04 02 003c 'ann' )")
			c.want("20 ( 00 00 )")
			c.packets(fmt.Sprintf("82 ( 0001 't' %02x )", qos))
			c.want(fmt.Sprintf("90 ( 0001 %02x )", qos))
			bo := s.enter(t, "bo")
			for i := range count {
				id := fmt.Sprintf("%04x", i+1)
				if qos == 1 {
					bo.packets("32 ( 't' " + id + " ( ) " + id + " )")
					bo.want("40 ( " + id + " )")
					continue
				}
				bo.packets("34 ( 't' " + id + " ( ) " + id + " ) 62 ( " + id + " )")
				bo.want("50 ( " + id + " )")
				bo.want("70 ( " + id + " )")
			}
			var held []uint16 // ids that are not acknowledged
			next := uint16(1)
			take := func(p []byte) {
				if len(p) != 9 || p[0] != 0x30|qos<<1 || binary.BigEndian.Uint16(p[7:]) != next {
					t.Fatalf("got %x, want publication %04x", p, next)
				}
				next++
				held = append(held, binary.BigEndian.Uint16(p[5:]))
			}
			for range 500 {
				_, p, err := c.read()
				if err != nil {
					t.Fatal(err)
				}
				take(p)
			}
			c.ping()
			for next <= count || len(held) > 0 {
				id := fmt.Sprintf("%04x", held[0])
				held = held[1:]
				if qos == 1 {
					c.packets("40 ( " + id + " )")
				} else {
					c.packets("50 ( " + id + " )")
					c.want("62 ( " + id + " )")
					c.packets("70 ( " + id + " )")
				}
				if next <= count {
					_, p, err := c.read()
					if err != nil {
						t.Fatal(err)
					}
					take(p)
				}
			}
			c.ping()
		})
	}
}

// What the client has and has not completed takes its part of the next network
// connection's window, and its PUBRELs come before what waits.
func TestWindowOfTheNextNetworkConnection(t *testing.T) {
	s := serve(t, engine.Options{}, false)
	hub := s.engine.Hub("chat")
	c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
	c.packets("10 ( 'MQTT' 05 02 003c ( 11 0000001e 21 0002 ) 'ann' )")
	c.want(connack5)
	c.packets("82 ( 0001 ( ) 't' 02 )")
	c.want("90 ( 0001 ( ) 02 )")
	bo := s.enter(t, "bo")
	for i := range 4 {
		bo.packets(fmt.Sprintf("34 ( 't' %04x ( ) \"%d\" ) 62 ( %04x )", i+1, i, i+1))
		bo.want(fmt.Sprintf("50 ( %04x )", i+1))
		bo.want(fmt.Sprintf("70 ( %04x )", i+1))
	}
	c.want("34 ( 't' 0001 ( ) \"0\" )")
	c.want("34 ( 't' 0002 ( ) \"1\" )")
	c.packets("50 ( 0002 ) 50 ( 0001 )")
	c.want("62 ( 0002 )")
	c.want("62 ( 0001 )")
	c.Close()

	c = s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
	c.packets("10 ( 'MQTT' 05 00 003c ( 11 0000001e 21 0001 ) 'ann' )")
	c.want("20 ( 01 00 ( 21 0400 25 00 27 00100000 28 00 2a 00 ) )")
	c.want("62 ( 0002 )") // in the order of the PUBRECs (MQTT-4.6.0-4)
	c.want("62 ( 0001 )")
	c.ping()
	c.packets("70 ( 0001 )")
	c.ping() // the other one still fills the window
	c.packets("70 ( 0002 )")
	c.want("34 ( 't' 0003 ( ) \"2\" )")
	c.ping()
	c.packets("50 ( 0003 ) 70 ( 0003 )")
	c.want("62 ( 0003 )")
	c.want("34 ( 't' 0004 ( ) \"3\" )")
	if n, err := hub.ConnExists(t.Context(), "ann"); !n || err != nil {
		t.Error(n, err)
	}
}
