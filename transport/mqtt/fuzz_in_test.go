package mqtt

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"

	"github.com/fanfare/fanfare/engine"
)

// parseAny reads one packet as the door does.
func parseAny(version, first byte, body []byte) (any, *fault) {
	if bad := checkFlags(first); bad != nil {
		return nil, bad
	}
	switch kind := first >> 4; kind {
	case typeConnect:
		return parseConnect(body)
	case typePublish:
		return parsePublish(version, first, body)
	case typePuback, typePubrec, typePubrel, typePubcomp:
		return parseAck(version, first, body)
	case typeSubscribe, typeUnsubscribe:
		return parseSubscribe(version, kind, body)
	case typeDisconnect:
		return parseDisconnect(version, body)
	}
	return nil, nil
}

// split returns the packets in pieces, which come one after the other, up to the
// first fault.
func split(limit int, pieces ...[]byte) (packets [][]byte, rest int, bad *fault) {
	s := splitter{limit: limit}
	for _, p := range pieces {
		b := s.add(p)
		for {
			first, body, more, ok, bad := s.next(b)
			if bad != nil {
				return packets, len(b), bad
			}
			if !ok {
				break
			}
			packets = append(packets, append([]byte{first}, body...))
			b = more
		}
		s.keep(b)
	}
	return packets, len(s.part), nil
}

// FuzzPackets gives the door's readers what strangers may send: nothing panics, the
// borders of messages change nothing, and a PUBLISH that is taken comes out as it
// went in.
func FuzzPackets(f *testing.F) {
	for _, seed := range []string{
		"100c00044d5154540402003c0000",                   // CONNECT
		"101500044d5154540506003c0000016100000174000178", // with a will
		"3006000174006869",                               // PUBLISH
		"321b000174000110" + "010103000a746578742f706c61696e" + "6869",
		"8207000100000174" + "02", // SUBSCRIBE
		"a206000100000174",        // UNSUBSCRIBE
		"40020001", "5003000180", "62020001", "70020001",
		"c000", "e000", "e0070005110000001e", "f000", "30ffffff7f", "308000",
	} {
		b, err := hex.DecodeString(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, byte(version5), uint16(3))
		f.Add(b, byte(version311), uint16(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, version byte, cut uint16) {
		if version != version311 {
			version = version5
		}
		const limit = 1 << 16
		whole, rest, bad := split(limit, b)
		at := min(int(cut), len(b))
		again, restAgain, badAgain := split(limit, b[:at], b[at:])
		if !reflect.DeepEqual(whole, again) || (bad == nil) != (badAgain == nil) || bad == nil && rest != restAgain {
			t.Fatalf("whole: %d packets, %d bytes, %v; in two: %d, %d, %v", len(whole), rest, bad, len(again), restAgain, badAgain)
		}
		for _, p := range whole {
			first, body := p[0], p[1:]
			v, bad := parseAny(version, first, body)
			pub, ok := v.(*publish)
			if bad != nil || !ok || pub.properties.has(propAlias) || pub.topic == "" {
				continue
			}
			comesOutAgain(t, version, pub)
		}
	})
}

// comesOutAgain publishes p to a subscriber who gets it as it was sent.
func comesOutAgain(t *testing.T, version byte, p *publish) {
	t.Helper()
	q := p.properties.request(engine.GroupName(p.topic), p.qos, p.payload)
	m := &engine.Message{Kind: engine.KindData, Group: q.Group, Payload: q.Payload, Attributes: q.Attributes}
	e := encoder{version: version}
	body, ok := e.AppendBody(nil, m)
	if !ok {
		t.Fatal("it is left out")
	}
	own := engine.Own{Membership: &subscription{qos: 2}}
	if p.qos > 0 {
		own.Seq = engine.SequenceID(p.id)
	}
	out := append(e.AppendOwn(nil, m, own), body...)
	if len(out) > e.largest(m) {
		t.Fatalf("it has %d bytes, which is more than the most of %d", len(out), e.largest(m))
	}
	s := splitter{limit: 1 << 28}
	first, inner, more, ok, bad := s.next(out)
	if !ok || bad != nil || len(more) > 0 {
		t.Fatalf("it is no packet: %x, %v", out, bad)
	}
	got, bad := parsePublish(version, first, inner)
	if bad != nil {
		t.Fatalf("it cannot be read: %x, %v", out, bad)
	}
	want := *p
	want.dup, want.retain = false, false
	want.properties.expiry = 0 // whoever sends it says what is left
	want.properties.present &^= 1 << propExpiry
	if want.properties.contentType == "" { // as good as none
		want.properties.present &^= 1 << propContentType
	}
	if !bytes.Equal(got.payload, want.payload) {
		t.Fatalf("the payload is %q, want %q", got.payload, want.payload)
	}
	got.payload, want.payload = nil, nil
	if !reflect.DeepEqual(got, &want) {
		t.Fatalf("got  %+v\nwant %+v", got, &want)
	}
}

// TestEverySeedByByte cuts a conversation at each of its bytes.
func TestEverySeedByByte(t *testing.T) {
	var all []byte
	for _, p := range []string{"300600017400" + "6869", "c000", "40020001", "e000"} {
		b, err := hex.DecodeString(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	want, _, _ := split(1<<16, all)
	for step := 1; step <= len(all); step++ {
		var pieces [][]byte
		for b := all; len(b) > 0; b = b[min(step, len(b)):] {
			pieces = append(pieces, b[:min(step, len(b))])
		}
		got, rest, bad := split(1<<16, pieces...)
		if bad != nil || rest != 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("in pieces of %d: %d packets, %d bytes left, %v", step, len(got), rest, bad)
		}
	}
}
