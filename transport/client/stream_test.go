package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

// shelf is a server's side of streams: it takes parts and says what it expects.
type shelf struct {
	// first, if set, sees each frame of a stream before it is taken; true means
	// done. n counts the frames, from 1.
	first func(p *peer, m map[string]any, n int) bool

	mu    sync.Mutex
	n     int
	open  map[string]int // the part that is expected next
	taken []string
	ends  []map[string]any
	alive int
}

func (s *shelf) onFrame(p *peer, m map[string]any) bool {
	start, begins := m["stream"].(map[string]any)
	id, _ := m["streamId"].(string)
	if begins {
		id, _ = start["streamId"].(string)
	}
	if id == "" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n++; s.first != nil && s.first(p, m, s.n) {
		return true
	}
	next, known := s.open[id]
	seq, numbered := m["streamSequenceId"].(float64)
	switch {
	case begins && known:
		p.say(`{"type":"streamClosed","streamId":%q,"error":{"name":"BadRequest","message":"in use"}}`, id)
		return true
	case begins:
		s.open[id], next = 1, 1
	case !known:
		p.say(`{"type":"streamClosed","streamId":%q,"error":{"name":"StreamNotFound","message":"unknown"}}`, id)
		return true
	case m["type"] == "streamEnd":
		delete(s.open, id)
		s.ends = append(s.ends, m)
		p.say(`{"type":"streamClosed","streamId":%q}`, id)
		return true
	case !numbered:
		s.alive++
		return true
	case int(seq) > next:
		p.say(`{"type":"streamNack","streamId":%q,"expectedSequenceId":%d,"name":"InvalidSequenceId","message":"a gap"}`, id, next)
		return true
	case int(seq) == next:
		s.taken = append(s.taken, fmt.Sprint(m["data"]))
		next++
		s.open[id] = next
	}
	p.say(`{"type":"streamAck","streamId":%q,"expectedSequenceId":%d}`, id, next)
	return true
}

func (s *shelf) serve(t *testing.T) *server {
	s.open = map[string]int{}
	return serve(t, &server{onFrame: s.onFrame})
}

func (s *shelf) took(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !reflect.DeepEqual(s.taken, want) {
		t.Errorf("the server took %q, want %q", s.taken, want)
	}
}

func publish(t *testing.T, st *client.Stream, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if err := st.Send(within(t), text(p)); err != nil {
			t.Fatalf("Send(%s): %v", p, err)
		}
	}
}

func TestStream(t *testing.T) {
	var shelf shelf
	s := shelf.serve(t)
	ctx := within(t)
	c := dial(t, s, nil)
	st, err := c.OpenStream(ctx, "news", &client.StreamOptions{NoEcho: true, IdleTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, st, "a", "b", "c")
	if err := st.Close(ctx); err != nil {
		t.Fatal(err)
	}
	shelf.took(t, "a", "b", "c")
	want := map[string]any{"type": "sendToGroup", "group": "news", "noEcho": true, "stream": map[string]any{"streamId": st.ID(), "idleTimeoutMs": 60000.0}}
	if got := s.peer(0).sent()[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("the stream began with %v, want %v", got, want)
	}
	if err := st.Send(ctx, text("d")); err == nil {
		t.Error("a part was sent after Close")
	}
	if err := st.Close(ctx); err != nil {
		t.Errorf("the second Close = %v", err)
	}

	other, err := c.OpenStream(ctx, "news", nil)
	if err != nil || other.ID() == st.ID() {
		t.Fatalf("OpenStream = %v, %v", other, err)
	}
	if err := other.Send(ctx, engine.Payload{Type: engine.JSON, Data: []byte("{")}); err == nil {
		t.Error("a part that is no JSON was taken")
	}
	publish(t, other, "z")
	if err := other.CloseWithError(ctx, strings.Repeat("x", 4097), ""); err == nil {
		t.Error("a message that a server would not take was sent")
	}
	if err := other.CloseWithError(ctx, "gave up", "E42"); err != nil {
		t.Fatal(err)
	}
	shelf.took(t, "a", "b", "c", "z")
	if got := shelf.ends[1]["error"]; !reflect.DeepEqual(got, map[string]any{"message": "gave up", "userErrorCode": "E42"}) {
		t.Errorf("the stream ended with %v", got)
	}
}

func TestStreamRefused(t *testing.T) {
	for _, idle := range []time.Duration{-1, time.Microsecond, 25 * time.Hour} {
		c := dial(t, serve(t, &server{}), nil)
		if _, err := c.OpenStream(within(t), "news", &client.StreamOptions{IdleTimeout: idle}); err == nil {
			t.Errorf("OpenStream with an idle timeout of %v succeeded", idle)
		}
	}
	s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
		p.say(`{"type":"streamClosed","streamId":%q,"error":{"name":"Forbidden","message":"no"}}`, m["stream"].(map[string]any)["streamId"])
		return true
	}})
	c := dial(t, s, nil)
	var refused *client.StreamError
	if _, err := c.OpenStream(within(t), "news", nil); !errors.As(err, &refused) || refused.Name != "Forbidden" || refused.Message != "no" {
		t.Errorf("OpenStream = %v", err)
	}
}

// A server that ends a stream by itself is heard by whoever uses it next.
func TestStreamEndsEarly(t *testing.T) {
	var shelf shelf
	shelf.first = func(p *peer, m map[string]any, n int) bool {
		if n != 2 {
			return false
		}
		p.say(`{"type":"streamClosed","streamId":%q,"error":{"name":"Forbidden","message":"taken back"}}`, m["streamId"])
		return true
	}
	c := dial(t, shelf.serve(t), nil)
	st, err := c.OpenStream(within(t), "news", nil)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, st, "a")
	var closed *client.StreamError
	if err := st.Close(within(t)); !errors.As(err, &closed) || closed.Name != "Forbidden" {
		t.Errorf("Close = %v", err)
	}
	if err := st.Send(within(t), text("b")); !errors.As(err, &closed) {
		t.Errorf("Send = %v", err)
	}
}

// What a server has not acknowledged is bounded.
func TestStreamFlow(t *testing.T) {
	hold := make(chan struct{})
	var shelf shelf
	shelf.first = func(p *peer, m map[string]any, n int) bool {
		if n == 2 {
			<-hold
		}
		return false
	}
	c := dial(t, shelf.serve(t), nil)
	st, err := c.OpenStream(within(t), "news", nil)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 64 {
		want = append(want, fmt.Sprint(i))
	}
	publish(t, st, want...)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := st.Send(ctx, text("one too many")); err != context.DeadlineExceeded {
		t.Errorf("Send = %v, want %v", err, context.DeadlineExceeded)
	}
	close(hold)
	publish(t, st, "64")
	if err := st.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	shelf.took(t, append(want, "64")...)

	// Large parts are bounded by their size, beside a last one.
	hold = make(chan struct{})
	shelf.n = 0
	if st, err = c.OpenStream(within(t), "news", nil); err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("x", 600<<10)
	publish(t, st, large, large)
	ctx, cancel = context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := st.Send(ctx, text("x")); err != context.DeadlineExceeded {
		t.Errorf("Send = %v, want %v", err, context.DeadlineExceeded)
	}
	close(hold)
	if err := st.Close(within(t)); err != nil {
		t.Fatal(err)
	}
}

// A part that the server could not take for the moment is sent again, with all
// that came behind it.
func TestStreamNack(t *testing.T) {
	var shelf shelf
	refused := 0
	shelf.first = func(p *peer, m map[string]any, n int) bool {
		if m["data"] != "b" || refused == 2 {
			return false
		}
		refused++
		p.say(`{"type":"streamNack","streamId":%q,"expectedSequenceId":2,"name":"TransientError","message":"busy"}`, m["streamId"])
		return true
	}
	c := dial(t, shelf.serve(t), nil)
	st, err := c.OpenStream(within(t), "news", nil)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, st, "a", "b", "c", "d")
	if err := st.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	shelf.took(t, "a", "b", "c", "d")
}

// The wire breaks at each frame of a stream, before the server has taken it or
// after: every part is taken once, in order, and the stream ends well.
func TestStreamRecovers(t *testing.T) {
	const frames = 5 // start, three parts, end
	for at := 1; at <= frames; at++ {
		for _, taken := range []bool{false, true} {
			t.Run(fmt.Sprintf("frame %d, taken %v", at, taken), func(t *testing.T) {
				var shelf shelf
				shelf.first = func(p *peer, m map[string]any, n int) bool {
					if n == at {
						p.Close()
					}
					return n == at && !taken
				}
				s := shelf.serve(t)
				c := dial(t, s, reliable())
				receive[client.Connected](t, c)
				st, err := c.OpenStream(within(t), "news", nil)
				if err != nil {
					t.Fatal(err)
				}
				publish(t, st, "a", "b", "c")
				if err := st.Close(within(t)); err != nil {
					t.Fatal(err)
				}
				receive[client.Recovered](t, c)
				shelf.took(t, "a", "b", "c")
				if len(shelf.ends) != 1 {
					t.Errorf("the stream ended %d times", len(shelf.ends))
				}
			})
		}
	}
}

// A stream does not outlive its connection, and nobody waits for it then.
func TestStreamOfALostConnection(t *testing.T) {
	for name, o := range map[string]*client.Options{"json": {}, "reliable": reliable()} {
		t.Run(name, func(t *testing.T) {
			var shelf shelf
			s := shelf.serve(t)
			o.Reconnect = &client.Reconnect{MinDelay: time.Millisecond}
			c := dial(t, s, o)
			receive[client.Connected](t, c)
			st, err := c.OpenStream(within(t), "news", nil)
			if err != nil {
				t.Fatal(err)
			}
			s.forget(0)
			s.cut(0)
			receive[client.Lost](t, c)
			receive[client.Connected](t, c)
			if err := st.Send(within(t), text("x")); err == nil {
				t.Error("Send succeeded")
			}
			if err := st.Close(within(t)); err == nil {
				t.Error("Close succeeded")
			}
			c.Close()
			nothingRuns(t, 0)
		})
	}
}

// The client speaks up for a program that is silent.
func TestStreamStaysAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		start := time.Now()
		o := reliablePipe(t, func(c net.Conn) {
			for {
				f, err := ws.ReadFrame(c)
				if err != nil {
					return
				}
				switch s := string(ws.UnmaskFrameInPlace(f).Payload); {
				case strings.Contains(s, "sendToGroup"):
					ws.WriteFrame(c, ws.NewTextFrame([]byte(`{"type":"streamAck","streamId":"1","expectedSequenceId":1}`)))
				case s == `{"type":"streamData","streamId":"1"}`:
					at = append(at, time.Since(start))
				}
			}
		})
		o.KeepAlive = -1
		c, err := client.Dial(t.Context(), "ws://in.memory/client/hubs/chat", o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.OpenStream(t.Context(), "news", &client.StreamOptions{IdleTimeout: 10 * time.Second}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(16 * time.Second) // of synctest
		c.Close()
		if want := []time.Duration{5 * time.Second, 10 * time.Second, 15 * time.Second}; !reflect.DeepEqual(at, want) {
			t.Errorf("signs of life at %v, want %v", at, want)
		}
	})
}

func TestStreamParts(t *testing.T) {
	s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
		p.say(`{"type":"message","from":"group","group":"news","dataType":"text","data":"a","stream":{"streamId":"s1","streamSequenceId":1}}`)
		p.say(`{"type":"message","from":"group","group":"news","stream":{"streamId":"s1","streamSequenceId":2,"endOfStream":true,"error":{"name":"UserError","message":"gave up","userErrorCode":"E42"}}}`)
		return false
	}})
	c := dial(t, s, nil)
	receive[client.Connected](t, c)
	if err := c.JoinGroup(within(t), "news"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []client.Message{
		{Group: "news", Payload: text("a"), Stream: &engine.StreamPart{ID: "s1", Seq: 1}},
		{Group: "news", Payload: text(""), Stream: &engine.StreamPart{ID: "s1", Seq: 2, End: true,
			Err: &engine.StreamError{Name: "UserError", Message: "gave up", UserCode: "E42"}}},
	} {
		if m := receive[client.Message](t, c); !reflect.DeepEqual(m, want) {
			t.Errorf("received %+v, want %+v", m, want)
		}
	}
}
