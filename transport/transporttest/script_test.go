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

func (e parcels) AppendPrefix(dst []byte, m *engine.Message, own engine.Own, n int) []byte {
	if m.Kind == engine.KindClose {
		return binary.BigEndian.AppendUint32(append(dst, parcelClose), uint32(n))
	}
	at := len(dst)
	dst = append(dst, byte(e.codec.Frame(m)), 0, 0, 0, 0)
	dst = e.codec.AppendOwn(dst, m, own)
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-5+n))
	return dst
}

func (e parcels) Own() bool { return e.codec.Own() }

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
		hello, err := json.Marshal(request{k, auth.(*transporttest.Guests).Invite(k.Identity)})
		if err != nil {
			t.Fatal(err)
		}
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
	join, err := admit(ctx, e, auth, &r)
	if err != nil {
		return err
	}
	if _, err := c.Write(parcel(parcelText, nil)); err != nil {
		return err
	}
	return join(c, wires)
}

// admit asks the engine for the client's connection, a new one or its own, and
// returns what puts it onto a wire.
func admit(ctx context.Context, e *engine.Engine, auth transport.Authenticator, r *request) (join func(net.Conn, *netwire.Group) error, _ error) {
	open := func(name string, join func(*transport.Session, netwire.Wire, *transport.SessionOptions) error) func(net.Conn, *netwire.Group) error {
		return func(c net.Conn, wires *netwire.Group) error {
			k := &knocked{limit: e.Limits().MessageBytes}
			w := wires.New(c, k)
			if err := join(&k.session, w, options(name, r.Knock)); err != nil {
				return err
			}
			w.Start(nil)
			return nil
		}
	}
	hub := e.Hub(r.Knock.Hub)
	if r.Knock.Recover != "" {
		recovery, err := hub.Recover(ctx, &engine.RecoverRequest{ConnID: r.Knock.Recover, Token: r.Knock.ReconnectionToken})
		if err != nil {
			return notRecovered, nil //nolint:nilerr // the client is told, in this way
		}
		return open(recovery.Subprotocol(), func(s *transport.Session, w netwire.Wire, o *transport.SessionOptions) error {
			return s.Recover(recovery, w, o)
		}), nil
	}
	id, err := auth.Authenticate(ctx, engine.Credentials{Hub: r.Knock.Hub, Token: r.Token})
	if err != nil {
		return nil, err
	}
	a, err := hub.Admit(ctx, &engine.AdmitRequest{Identity: id})
	if err != nil {
		return nil, err
	}
	return open(r.Knock.Subprotocol, func(s *transport.Session, w netwire.Wire, o *transport.SessionOptions) error {
		return s.Open(a, w, o)
	}), nil
}

// notRecovered tells the client that it is to give its connection up.
func notRecovered(c net.Conn, _ *netwire.Group) error {
	defer c.Close()
	code := binary.BigEndian.AppendUint16(nil, uint16(engine.ClosePolicy))
	_, err := c.Write(parcel(parcelClose, append(code, transport.ReasonNotRecovered...)))
	return err
}

func options(name string, k transporttest.Knock) *transport.SessionOptions {
	p, ok := subprotocol.Find(name)
	if !ok {
		codec, decoder := subprotocol.Raw(k.Raw, k.Group, k.NoEcho)
		return &transport.SessionOptions{Decoder: decoder, Encoding: parcels{codec}, Raw: true}
	}
	return &transport.SessionOptions{
		Decoder: p.Decoder, Encoding: parcels{p.Encoder}, Subprotocol: p.Name,
		Reliable: p.Reliable, Recovery: 30 * time.Second,
	}
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
	c.SetWriteDeadline(time.Now().Add(time.Minute))
	_, err := c.Conn.Write(parcel(byte(f), p))
	return err
}

func (c *parcelClient) Receive() (subprotocol.Frame, []byte, error) {
	if c.closed != nil {
		return 0, nil, c.closed
	}
	c.SetReadDeadline(time.Now().Add(time.Minute))
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
