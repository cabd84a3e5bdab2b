package mqtt_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
)

// A packet that is spread over frames has to be complete in time, pings and whole
// frames between its parts or not. Each packet has a time of its own.
func TestUnfinishedPacket(t *testing.T) {
	bubble(t, engine.Options{Limits: engine.Limits{MessageTimeout: 30 * time.Second}}, func(t *testing.T, s *server) {
		c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
		c.SetDeadline(time.Time{})
		c.packets("10 ( 'MQTT' 05 02 0000 ( ) 'ann' )")
		c.want(connack5)
		for range 3 { // each is complete after 20 s
			c.send([]byte{0xc0})
			time.Sleep(20 * time.Second)
			c.send([]byte{0x00})
			c.want("d0 ( )")
		}
		c.send([]byte{0xc0, 0x00, 0x30, 0x7f, 0x00, 0x01, 'a', 0x00}) // a whole packet, and a part
		c.want("d0 ( )")
		began := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; ; i++ {
				time.Sleep(time.Second)
				p := frame(ws.OpBinary, []byte("x"))
				if i%2 == 0 {
					p = frame(ws.OpPing, nil)
				}
				if _, err := c.Write(p); err != nil {
					return
				}
			}
		}()
		for {
			op, p, err := c.read()
			if err != nil {
				t.Fatal(err)
			}
			if op == ws.OpPong {
				continue
			}
			if op != ws.OpBinary || p[0] != 0xe0 || !strings.Contains(string(p), "[limits.messageTimeout]") {
				t.Errorf("got frame %x %q; want a DISCONNECT that names the rule", op, p)
			}
			break
		}
		if took := time.Since(began); took < 30*time.Second || took > 31*time.Second {
			t.Errorf("it ended after %s", took)
		}
		c.Close()
		<-done
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := s.engine.Stats().UnfinishedBytes; n != 0 {
			t.Errorf("%d bytes are still counted", n)
		}
	})
}

// What was left for later, because the client was ahead of its rate, may end with a
// part of a packet: its time begins when its turn has come.
func TestUnfinishedPacketBehindAPause(t *testing.T) {
	bubble(t, engine.Options{Limits: engine.Limits{MessageTimeout: 30 * time.Second, ControlRate: 100}}, func(t *testing.T, s *server) {
		c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
		c.SetDeadline(time.Time{})
		c.packets("10 ( 'MQTT' 05 02 0000 ( ) 'ann' )")
		c.want(connack5)
		began := time.Now()
		go c.send(append(bytes.Repeat([]byte{0xc0, 0}, 201), 0x30, 0x7f, 0x00))
		for range 201 {
			c.want("d0 ( )")
		}
		op, p, err := c.read()
		if err != nil || op != ws.OpBinary || p[0] != 0xe0 || !strings.Contains(string(p), "[limits.messageTimeout]") {
			t.Errorf("got frame %x %q, %v; want a DISCONNECT that names the rule", op, p, err)
		}
		if took := time.Since(began); took < 30*time.Second || took > 33*time.Second {
			t.Errorf("it ended after %s", took)
		}
		c.Close()
	})
}

// PINGREQs and acknowledgements of nothing are bounded like the frames that carry
// none.
func TestFloodOfPackets(t *testing.T) {
	for name, packet := range map[string][]byte{
		"PINGREQ": {0xc0, 0},
		"PUBREL":  {0x62, 2, 0, 9},
		"PUBCOMP": {0x70, 2, 0, 9},
	} {
		for _, packets := range []int{1, 10_000} { // in a frame
			t.Run(fmt.Sprint(name, packets), func(t *testing.T) {
				bubble(t, engine.Options{Limits: engine.Limits{ControlRate: 100}}, func(t *testing.T, s *server) {
					c := s.enter(t, "ann")
					c.SetDeadline(time.Time{})
					began := time.Now()
					done := make(chan struct{})
					go func() {
						defer close(done)
						f := frame(ws.OpBinary, bytes.Repeat(packet, packets))
						for {
							if _, err := c.Write(f); err != nil {
								return
							}
						}
					}()
					answers := 0
					for {
						op, p, err := c.read()
						if err != nil {
							t.Fatal(err)
						}
						if op == ws.OpBinary && p[0] == 0xe0 {
							if p[2] != 0x96 || !strings.Contains(string(p), "[limits.controlRate]") {
								t.Errorf("got %q; want a DISCONNECT 0x96 that names the rule", p)
							}
							break
						}
						answers++
					}
					if took := time.Since(began); took < 4*time.Second || took > 10*time.Second {
						t.Errorf("it ended after %s", took)
					}
					if answers > 1200 {
						t.Errorf("%d packets were answered", answers)
					}
					c.Close()
					<-done
					time.Sleep(time.Minute)
					synctest.Wait()
					if n := s.engine.Stats().UnfinishedBytes; n != 0 {
						t.Errorf("%d bytes are still counted", n)
					}
				})
			})
		}
	}
}

// Packets of one frame, more than a client gets carried out in a turn, are carried
// out in order, those behind the CONNECT too, over sockets and pipes.
func TestManyPacketsInOneFrame(t *testing.T) {
	for _, sockets := range []bool{false, true} {
		s := serve(t, engine.Options{}, sockets)
		c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
		connect, err := parseNotation("10 ( 'MQTT' 05 02 003c ( ) 'ann' ) 82 ( 0001 ( ) 'g' 00 )")
		if err != nil {
			t.Fatal(err)
		}
		const packets = 1000
		all := connect.bytes
		for i := range packets {
			all = append(all, 0x30, 8, 0, 1, 'g', 0)
			all = fmt.Appendf(all, "%04d", i)
		}
		go c.send(all)
		c.want(connack5)
		c.want("90 ( 0001 ( ) 00 )")
		for i := range packets {
			op, p, err := c.read()
			if err != nil || op != ws.OpBinary || string(p[len(p)-4:]) != fmt.Sprintf("%04d", i) {
				t.Fatalf("got %x %q, %v; want the payload %04d", op, p, err, i)
			}
		}
		c.packets("c0 ( )")
		c.want("d0 ( )")
	}
}

// A client that has sent no CONNECT is bounded, too.
func TestFloodBeforeConnect(t *testing.T) {
	bubble(t, engine.Options{Limits: engine.Limits{ControlRate: 10}}, func(t *testing.T, s *server) {
		c := s.connect(t, engine.Identity{UserID: "ann"})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := c.Write(frame(ws.OpPing, nil)); err != nil {
					return
				}
			}
		}()
		pongs := 0
		for {
			op, p, err := c.read()
			if err != nil {
				t.Fatal(err)
			}
			if op == ws.OpClose {
				if want := "\x03\xf0The client sends more than 20 pings and empty frames before its first packet. [limits.controlRate]"; string(p) != want {
					t.Errorf("closed with %q; want %q", p, want)
				}
				break
			}
			pongs++
		}
		if pongs > 30 {
			t.Errorf("%d pings were answered", pongs)
		}
		c.Close()
		<-done
	})
}

// What comes before the CONNECT is complete counts for the bound of the node.
func TestUnfinishedConnect(t *testing.T) {
	bubble(t, engine.Options{Limits: engine.Limits{TotalUnfinishedBytes: 10_000}}, func(t *testing.T, s *server) {
		c := s.connect(t, engine.Identity{UserID: "ann"})
		go c.Write(frame(ws.OpBinary, append([]byte{0x10, 0xff, 0xff, 0x7f}, make([]byte, 20_000)...)))
		op, p, err := c.read()
		if err != nil || op != ws.OpClose || !strings.Contains(string(p), "[limits.totalUnfinishedBytes]") {
			t.Errorf("got %x %q, %v; want a close frame that names the rule", op, p, err)
		}
		c.Close()
		synctest.Wait()
		if n := s.engine.Stats().UnfinishedBytes; n != 0 {
			t.Errorf("%d bytes are still counted", n)
		}
	})
}
