package client_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// server is a small service of the JSON subprotocol: enough of one to talk to.
type server struct {
	URL string

	// refuse, if set, answers the handshake of connection n (from 1) itself.
	refuse func(n int, r *http.Request) (status int, body string)
	// greet replaces the first frame; "-" sends none.
	greet string
	// onFrame, if set, sees each frame first and may answer it; true means done.
	onFrame func(p *peer, f map[string]any) bool

	l    net.Listener
	wg   sync.WaitGroup
	mu   sync.Mutex
	n    int
	live map[*peer]bool
	all  []*peer
}

// peer is one connection of the server.
type peer struct {
	net.Conn
	n      int
	closed chan struct{} // when the server stopped reading it
	pings  chan struct{}

	mu     sync.Mutex
	groups map[string]bool
	frames []map[string]any // what the client sent
	code   ws.StatusCode    // how the client said goodbye
	reason string
}

func serve(t testing.TB, s *server) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.l = l
	s.URL = "ws://" + l.Addr().String() + "/client/hubs/chat?access_token=secret-token"
	s.live = map[*peer]bool{}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.handle(c) })
		}
	})
	t.Cleanup(s.stop)
	return s
}

func (s *server) stop() {
	s.l.Close()
	s.mu.Lock()
	for p := range s.live {
		p.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// buffered is a connection whose first bytes were read ahead.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func (s *server) handle(c net.Conn) {
	defer c.Close()
	br := bufio.NewReader(c)
	s.mu.Lock()
	s.n++
	n := s.n
	s.mu.Unlock()
	if s.refuse != nil {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if status, body := s.refuse(n, r); status != 0 {
			fmt.Fprintf(c, "HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
			return
		}
		pr, pw := io.Pipe()
		go func() { pw.CloseWithError(r.Write(pw)) }()
		br = bufio.NewReader(io.MultiReader(pr, br))
	}
	u := ws.Upgrader{Protocol: func(p []byte) bool { return string(p) == "json.webpubsub.azure.v1" }}
	if _, err := u.Upgrade(buffered{c, br}); err != nil {
		return
	}
	p := &peer{Conn: buffered{c, br}, n: n, closed: make(chan struct{}), pings: make(chan struct{}, 16), groups: map[string]bool{}}
	s.mu.Lock()
	s.live[p] = true
	s.all = append(s.all, p)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.live, p)
		s.mu.Unlock()
		close(p.closed)
	}()
	switch s.greet {
	case "":
		p.say(`{"type":"system","event":"connected","userId":"kim","connectionId":"conn-%d"}`, n)
	case "-":
	default:
		p.say("%s", s.greet)
	}
	s.read(p)
}

func (s *server) read(p *peer) {
	for {
		f, err := ws.ReadFrame(p)
		if err != nil {
			return
		}
		f = ws.UnmaskFrameInPlace(f)
		switch f.Header.OpCode {
		case ws.OpPing:
			select {
			case p.pings <- struct{}{}:
			default:
			}
			p.frame(ws.OpPong, f.Payload)
		case ws.OpPong:
		case ws.OpClose:
			p.mu.Lock()
			p.code, p.reason = ws.ParseCloseFrameData(f.Payload)
			p.mu.Unlock()
			p.frame(ws.OpClose, f.Payload)
			return
		default:
			var m map[string]any
			if json.Unmarshal(f.Payload, &m) != nil {
				m = map[string]any{"raw": string(f.Payload), "op": f.Header.OpCode}
			}
			p.mu.Lock()
			p.frames = append(p.frames, m)
			p.mu.Unlock()
			if s.onFrame == nil || !s.onFrame(p, m) {
				s.answer(p, m)
			}
		}
	}
}

func (s *server) answer(p *peer, m map[string]any) {
	ack := func() {
		if id, ok := m["ackId"]; ok {
			p.say(`{"type":"ack","ackId":%v,"success":true}`, id)
		}
	}
	group, _ := m["group"].(string)
	switch m["type"] {
	case "joinGroup", "leaveGroup":
		p.mu.Lock()
		p.groups[group] = m["type"] == "joinGroup"
		p.mu.Unlock()
		ack()
	case "sendToGroup":
		data, _ := json.Marshal(m["data"])
		s.mu.Lock()
		for q := range s.live {
			q.mu.Lock()
			in := q.groups[group] && !(q == p && m["noEcho"] == true)
			q.mu.Unlock()
			if in {
				q.say(`{"type":"message","from":"group","group":%q,"fromUserId":"kim","dataType":%q,"data":%s}`, group, m["dataType"], data)
			}
		}
		s.mu.Unlock()
		ack()
	case "event":
		p.say(`{"type":"message","from":"server","dataType":"text","data":"reply","metadata":{"trace":"t-1"}}`)
		ack()
	case "ping":
		p.say(`{"type":"pong"}`)
	}
}

func (p *peer) say(format string, args ...any) {
	p.frame(ws.OpText, fmt.Appendf(nil, format, args...))
}

func (p *peer) frame(op ws.OpCode, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wsutil.WriteServerMessage(p.Conn, op, b)
}

// member reports whether p is in group.
func (p *peer) member(group string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.groups[group]
}

func (s *server) peer(i int) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[i]
}
