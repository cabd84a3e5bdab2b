package mqtt_test

import (
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
	"github.com/fanfare/fanfare/transport/mqtt"
)

// moved is v as another node has it.
func moved(t *testing.T, v any) any {
	t.Helper()
	if v == nil {
		return nil
	}
	data, ok := mqtt.Marshal(v)
	if !ok {
		t.Fatalf("%T is not MQTT's", v)
	}
	there, err := mqtt.Unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return there
}

// A session goes on on another node, with all that the door keeps in it.
func TestSessionMoves(t *testing.T) {
	a, b := serve(t, engine.Options{}, false), serve(t, engine.Options{}, false)
	ann := engine.Identity{UserID: "ann", Roles: everything}
	c := a.connect(t, ann)
	c.packets("10 ( 'MQTT' 05 02 003c ( 11 0000001e ) 'ann1' )")
	c.want(connack5)
	c.packets("82 ( 0001 ( 0b 05 ) 'news' 02 'own' 05 )")
	c.want("90 ( 0001 ( ) 02 01 )")
	c.packets("34 ( 'news' 0001 ( 01 01 09 '' 26 'k' 'v' ) \"one\" )") // never released
	c.want("34 ( 'news' 0001 ( 0b 05 01 01 09 '' 26 'k' 'v' ) \"one\" )")
	c.want("50 ( 0001 )")
	c.packets("34 ( 'news' 0002 ( 03 'a/b' 08 'r' ) \"two\" ) 62 ( 0002 )")
	c.want("34 ( 'news' 0002 ( 0b 05 03 'a/b' 08 'r' ) \"two\" )")
	c.want("50 ( 0002 )")
	c.want("70 ( 0002 )")
	c.packets("50 ( 0002 )") // the second one is received, and not completed
	c.want("62 ( 0002 )")

	st, err := a.engine.Hub("chat").HandOver(t.Context(), "ann1")
	if err != nil {
		t.Fatal(err)
	}
	c.want("e0 ( 8b ( ) )")
	c.want("close 1000")
	st.Session, st.Details = moved(t, st.Session), moved(t, st.Details)
	for i := range st.Groups {
		st.Groups[i].Options = moved(t, st.Groups[i].Options)
	}
	for _, deliveries := range [][]engine.DeliveryState{st.Replay, st.Waiting} {
		for i := range deliveries {
			m := *deliveries[i].Message
			m.Attributes = moved(t, m.Attributes)
			deliveries[i].Message, deliveries[i].Membership = &m, moved(t, deliveries[i].Membership)
		}
	}
	if err := b.engine.Hub("chat").Adopt(t.Context(), st, enginetest.Lines{Numbered: true}); err != nil {
		t.Fatal(err)
	}
	c = b.connect(t, ann)
	c.packets("10 ( 'MQTT' 05 00 003c ( 11 0000001e ) 'ann1' )")
	c.want("20 ( 01 00 ( 21 0400 25 00 27 00100000 28 00 2a 00 ) )")
	c.want("3c ( 'news' 0001 ( 0b 05 01 01 09 '' 26 'k' 'v' ) \"one\" )")
	c.want("62 ( 0002 )")
	c.packets("3c ( 'news' 0001 ( ) \"one\" )") // is still held
	c.want("50 ( 0001 )")
	c.packets("30 ( 'own' ( ) \"mine\" ) c0 ( )")
	c.want("d0 ( )")
	c.packets("30 ( 'news' ( ) \"zero\" ) 32 ( 'news' 0003 ( ) \"three\" )") // the first takes no number
	c.want("30 ( 'news' ( 0b 05 ) \"zero\" )")
	c.want("32 ( 'news' 0003 ( 0b 05 ) \"three\" )")
	c.want("40 ( 0003 )")
}

// What is not MQTT's is told apart.
func TestMarshalRefuses(t *testing.T) {
	if _, ok := mqtt.Marshal(time.Second); ok {
		t.Error("a duration is MQTT's")
	}
	for _, data := range []string{"", "{", "{}", `{"publication":1}`} {
		if v, err := mqtt.Unmarshal([]byte(data)); err == nil {
			t.Errorf("%q is %v", data, v)
		}
	}
}
