package client_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/fanfare/fanfare/transport/client"
)

// server is a small service of the JSON subprotocols: enough of one to talk to.
type server struct {
	URL string

	// refuse, if set, answers the handshake of connection n (from 1) itself.
	refuse func(n int, r *http.Request) (status int, body string)
	// greet replaces the first frame; "-" sends none.
	greet string
	// mute sends no connected message to who recovers, as some servers do.
	mute bool
	// newcomers takes those who recover for new clients.
	newcomers bool
	// onFrame, if set, sees each frame first and may answer it; true means done.
	onFrame func(p *peer, f map[string]any) bool

	l     net.Listener
	wg    sync.WaitGroup
	mu    sync.Mutex // before life.mu, before peer.mu
	n     int
	live  map[*peer]bool
	all   []*peer
	lives []*life
}

// life is one logical connection of the server.
type life struct {
	id, token string // the token is empty without recovery

	mu     sync.Mutex
	peer   *peer // nil while there is none
	groups map[string]bool
	done   map[any]bool // ack ids
	seq    int
	kept   []string // what was not acknowledged: the deliveries up to seq
	acks   []int    // sequence ids, as they came
}

// peer is one wire of the server.
type peer struct {
	net.Conn
	n      int
	life   *life
	closed chan struct{} // when the server stopped reading it
	pings  chan struct{}

	mu     sync.Mutex
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
	var query url.Values
	var protocol string
	u := ws.Upgrader{
		Protocol: func(p []byte) bool {
			protocol = string(p)
			return protocol == client.JSON || protocol == client.ReliableJSON
		},
		OnRequest: func(uri []byte) error {
			at, err := url.Parse(string(uri))
			if err == nil {
				query = at.Query()
			}
			return err
		},
	}
	if _, err := u.Upgrade(buffered{c, br}); err != nil {
		return
	}
	p := &peer{Conn: buffered{c, br}, n: n, closed: make(chan struct{}), pings: make(chan struct{}, 16)}
	if !s.attach(p, query, protocol == client.ReliableJSON) {
		p.frame(ws.OpClose, ws.NewCloseFrameBody(1008, "The connection could not be recovered."))
		return
	}
	defer func() {
		s.mu.Lock()
		delete(s.live, p)
		s.mu.Unlock()
		p.life.mu.Lock()
		if p.life.peer == p {
			p.life.peer = nil
		}
		p.life.mu.Unlock()
		close(p.closed)
	}()
	s.read(p)
}

// attach gives p its logical connection, and tells it what it is to know first.
func (s *server) attach(p *peer, query url.Values, reliable bool) bool {
	id := query.Get("awps_connection_id")
	if s.newcomers {
		id = ""
	}
	for _, l := range s.known() {
		if l.id == id {
			p.life = l
			l.leave()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != "" && (p.life == nil || p.life.token == "" || p.life.token != query.Get("awps_reconnection_token")) {
		return false
	}
	if p.life == nil {
		p.life = &life{id: fmt.Sprintf("conn-%d", p.n), groups: map[string]bool{}, done: map[any]bool{}}
		if reliable {
			p.life.token = "token of " + p.life.id
		}
		s.lives = append(s.lives, p.life)
	}
	s.live[p] = true
	s.all = append(s.all, p)
	l := p.life
	l.mu.Lock()
	defer l.mu.Unlock()
	l.peer = p
	switch {
	case id != "" && s.mute, s.greet == "-":
	case s.greet != "":
		p.say("%s", s.greet)
	case l.token != "":
		p.say(`{"type":"system","event":"connected","userId":"kim","connectionId":%q,"reconnectionToken":%q}`, l.id, l.token)
	default:
		p.say(`{"type":"system","event":"connected","userId":"kim","connectionId":%q}`, l.id)
	}
	for _, text := range l.kept {
		p.say("%s", text)
	}
	return true
}

// leave cuts the wire that l has, and waits until what came over it is done: what
// comes over the next one comes after it.
func (l *life) leave() {
	l.mu.Lock()
	p := l.peer
	l.mu.Unlock()
	if p != nil {
		p.Close()
		<-p.closed
	}
}

// deliver sends a message, given without its first brace, to l wherever it is.
func (l *life) deliver(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := "{" + fmt.Sprintf(format, args...)
	if l.token != "" {
		l.seq++
		text = fmt.Sprintf(`{"sequenceId":%d,`, l.seq) + text[1:]
		l.kept = append(l.kept, text)
	}
	if l.peer != nil {
		l.peer.say("%s", text)
	}
}

// acknowledged notes that the client has all up to seq.
func (l *life) acknowledged(seq int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks = append(l.acks, seq)
	l.kept = l.kept[max(0, len(l.kept)-max(0, l.seq-seq)):]
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
	l := p.life
	if id, ok := m["ackId"]; ok {
		l.mu.Lock()
		done := l.done[id]
		l.done[id] = true
		l.mu.Unlock()
		if done {
			p.say(`{"type":"ack","ackId":%v,"success":false,"error":{"name":"Duplicate","message":"done"}}`, id)
			return
		}
		defer p.say(`{"type":"ack","ackId":%v,"success":true}`, id)
	}
	group, _ := m["group"].(string)
	switch m["type"] {
	case "joinGroup", "leaveGroup":
		l.mu.Lock()
		l.groups[group] = m["type"] == "joinGroup"
		l.mu.Unlock()
	case "sendToGroup":
		data, _ := json.Marshal(m["data"])
		s.mu.Lock()
		for _, to := range s.lives {
			if to.member(group) && !(to == l && m["noEcho"] == true) {
				to.deliver(`"type":"message","from":"group","group":%q,"fromUserId":"kim","dataType":%q,"data":%s}`, group, m["dataType"], data)
			}
		}
		s.mu.Unlock()
	case "event":
		l.deliver(`"type":"message","from":"server","dataType":"text","data":"reply","metadata":{"trace":"t-1"}}`)
	case "ping":
		p.say(`{"type":"pong"}`)
	case "sequenceAck":
		seq, _ := m["sequenceId"].(float64)
		l.acknowledged(int(seq))
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

// member reports whether l is in group.
func (l *life) member(group string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.groups[group]
}

func (s *server) peer(i int) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[i]
}

// newest is the last that was let in.
func (s *server) newest() *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[len(s.all)-1]
}

func (s *server) known() []*life {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lives)
}

// wires is how many wires there were.
func (s *server) wires() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// forget makes the connection of wire i one that cannot be recovered.
func (s *server) forget(i int) {
	l := s.peer(i).life
	s.mu.Lock()
	defer s.mu.Unlock()
	l.token = ""
}

// sent returns what the client sent over p.
func (p *peer) sent() []map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.frames)
}
