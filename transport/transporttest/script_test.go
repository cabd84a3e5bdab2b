package transporttest_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/internal/netwire"
	"github.com/fanfare/fanfare/transport/subprotocol"
	"github.com/fanfare/fanfare/transport/transporttest"
)

// TestScript plays the script against the smallest door there can be: no HTTP, no
// WebSocket. It shows that a session knows nothing of either, and what a door has
// to do.
func TestScript(t *testing.T) {
	transporttest.Run(t, parcelDoor, synctest.Test)
}

// The parcel door: a client knocks with one parcel that holds its Knock and its
// token as JSON, and is answered with an empty one. A parcel is a byte for its
// kind, four for its length, and its content.
const (
	parcelText = iota
	parcelBinary
	parcelClose // two bytes of code, and the text
)

func parcel(kind byte, content []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(content))), content...)
}

// parcels is a subprotocol in parcels.
type parcels struct{ codec subprotocol.Encoder }

func (e parcels) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	if m.Kind == engine.KindClose {
		return append(binary.BigEndian.AppendUint16(dst, uint16(m.CloseCode)), m.Text...), true
	}
	return e.codec.AppendBody(dst, m)
}

func (e parcels) AppendPrefix(dst []byte, m *engine.Message, _ engine.Own, n int) []byte {
	kind := byte(parcelClose)
	if m.Kind != engine.KindClose {
		kind = byte(e.codec.Frame(m))
	}
	return binary.BigEndian.AppendUint32(append(dst, kind), uint32(n))
}

func (parcels) Own() bool { return false }

// knocked is the door's end of a connection.
type knocked struct {
	session transport.Session
	limit   int
	buf     []byte
	gone    bool
}

func (k *knocked) Consume(p []byte) (int, bool) {
	if !k.session.Wants() {
		return 0, false
	}
	k.session.Heard()
	old := len(k.buf) // less than a parcel
	all := append(k.buf, p...)
	rest := all
	for !k.gone && len(rest) >= 5 {
		n := int(binary.BigEndian.Uint32(rest[1:]))
		if n > k.limit {
			k.session.Refuse(engine.CloseTooLarge, transport.ReasonTooLarge, "a parcel is too large")
		}
		if len(rest) < 5+n {
			break
		}
		kind, content := rest[0], rest[5:5+n]
		rest = rest[5+n:]
		if kind == parcelClose {
			k.gone = true
			k.session.Gone(engine.CloseCode(binary.BigEndian.Uint16(content)), string(content[2:]))
			break
		}
		if !k.session.Message(subprotocol.Frame(kind), content) {
			k.buf = nil
			return len(all) - len(rest) - old, false
		}
	}
	k.buf = rest
	return len(p), true
}

func (k *knocked) Lost(error) { k.session.Gone(engine.CloseAbnormal, "") }
func (k *knocked) Writable()  { k.session.Writable() }

type request struct {
	Knock transporttest.Knock
	Token string
}

func parcelDoor(t testing.TB, e *engine.Engine, auth transport.Authenticator) func(transporttest.Knock) transporttest.Client {
	l := transporttest.Listen()
	var wires netwire.Group
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if err := letIn(e, auth, &wires, c); err != nil {
				c.Close()
			}
		}
	})
	t.Cleanup(func() {
		e.Close()
		l.Close()
		serving.Wait()
	})
	return func(k transporttest.Knock) transporttest.Client {
		c, err := l.Dial()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		cl := &parcelClient{Conn: c}
		hello, _ := json.Marshal(request{k, auth.(*transporttest.Guests).Invite(k.Identity)})
		if _, err := c.Write(parcel(parcelText, hello)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := cl.Receive(); err != nil {
			t.Fatal(err)
		}
		return cl
	}
}

func letIn(e *engine.Engine, auth transport.Authenticator, wires *netwire.Group, c net.Conn) error {
	ctx := context.Background()
	_, hello, err := readParcel(c)
	if err != nil {
		return err
	}
	var r request
	if err := json.Unmarshal(hello, &r); err != nil {
		return err
	}
	id, err := auth.Authenticate(ctx, engine.Credentials{Hub: r.Knock.Hub, Token: r.Token})
	if err != nil {
		return err
	}
	a, err := e.Hub(r.Knock.Hub).Admit(ctx, &engine.AdmitRequest{Identity: id})
	if err != nil {
		return err
	}
	if _, err := c.Write(parcel(parcelText, nil)); err != nil {
		a.Abandon("gone")
		return err
	}
	codec, decoder := subprotocol.JSON()
	raw := r.Knock.Subprotocol == ""
	if raw {
		codec, decoder = subprotocol.Raw(r.Knock.Raw, r.Knock.Group, r.Knock.NoEcho)
	}
	k := &knocked{limit: e.Limits().MessageBytes}
	w := wires.New(c, k)
	if err := k.session.Open(a, w, &transport.SessionOptions{
		Decoder: decoder, Encoding: parcels{codec}, Subprotocol: codec.Name(), Raw: raw,
	}); err != nil {
		return err
	}
	w.Start(nil)
	return nil
}

func readParcel(r io.Reader) (kind byte, content []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	content = make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err = io.ReadFull(r, content)
	return head[0], content, err
}

// parcelClient is the client's end.
type parcelClient struct {
	net.Conn
	closed *transporttest.Closed
}

func (c *parcelClient) Send(f subprotocol.Frame, p []byte) error {
	c.SetWriteDeadline(time.Now().Add(30 * time.Second))
	_, err := c.Conn.Write(parcel(byte(f), p))
	return err
}

func (c *parcelClient) Receive() (subprotocol.Frame, []byte, error) {
	if c.closed != nil {
		return 0, nil, c.closed
	}
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	kind, content, err := readParcel(c.Conn)
	if err != nil || kind != parcelClose {
		return subprotocol.Frame(kind), content, err
	}
	c.closed = &transporttest.Closed{Code: engine.CloseCode(binary.BigEndian.Uint16(content)), Text: string(content[2:])}
	c.Conn.Write(parcel(parcelClose, content[:2]))
	return 0, nil, c.closed
}

func (c *parcelClient) Close(code engine.CloseCode, text string) (*transporttest.Closed, error) {
	body := append(binary.BigEndian.AppendUint16(nil, uint16(code)), text...)
	if err := c.Send(parcelClose, body); err != nil {
		return nil, err
	}
	for {
		_, _, err := c.Receive()
		var closed *transporttest.Closed
		if errors.As(err, &closed) {
			return closed, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (c *parcelClient) Drop() { c.Conn.Close() }
