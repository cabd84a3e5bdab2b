package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fanfare/fanfare/authn/accesskey"
)

// stream2 is an HTTP/2 connection that sends frames of the test's choice, and notes how it
// ends.
type stream2 struct {
	*tls.Conn
	*http2.Framer
	out     *bufio.Writer // of the framer; floods fill it, all else flushes it
	block   bytes.Buffer
	encoder *hpack.Encoder
	next    uint32
	ended   chan ending // once
	headers chan int    // how many HEADERS frames have come, when that grows; closed at the end
}

// ending is what a node has sent on a connection when it is closed.
type ending struct {
	goAway    bool
	code      http2.ErrCode
	responses int
}

func newStream2(t *testing.T, n *command) *stream2 {
	t.Helper()
	s := &stream2{Conn: connectSecurely(t, n, "h2"), next: 1, ended: make(chan ending, 1), headers: make(chan int, 1)}
	s.out = bufio.NewWriterSize(s.Conn, 16<<10)
	s.out.WriteString(http2.ClientPreface)
	s.Framer = http2.NewFramer(s.out, s.Conn)
	s.encoder = hpack.NewEncoder(&s.block)
	s.WriteSettings()
	s.out.Flush()
	go func() { // ends with the connection
		var e ending
		defer close(s.headers)
		for {
			f, err := s.ReadFrame()
			if err != nil {
				s.ended <- e
				return
			}
			switch f := f.(type) {
			case *http2.GoAwayFrame:
				e.goAway, e.code = true, f.ErrCode
			case *http2.HeadersFrame:
				e.responses++
				select {
				case <-s.headers: // not read yet
				default:
				}
				s.headers <- e.responses
			}
		}
	}()
	return s
}

// request sends a request, with more header fields than every request has, and returns its
// stream. Unless end is set, its body does not end.
func (s *stream2) request(method, path string, end bool, fields ...string) (uint32, error) {
	s.block.Reset()
	for pair := range slices.Chunk(append([]string{":method", method, ":scheme", "https", ":path", path}, fields...), 2) {
		s.encoder.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1]})
	}
	id := s.next
	s.next += 2
	return id, s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.block.Bytes(), EndStream: end, EndHeaders: true})
}

// reset sends a request and resets its stream.
func (s *stream2) reset(path string) error {
	id, err := s.request("GET", path, true, ":authority", "x")
	if err != nil {
		return err
	}
	return s.WriteRSTStream(id, http2.ErrCodeCancel)
}

// awaits waits for as many HEADERS frames in all: those of interim responses, too. It
// reports whether they came before the connection ended.
func (s *stream2) awaits(n int) bool {
	for got := range s.headers {
		if got >= n {
			return true
		}
	}
	return false
}

// Floods that belong to no request end their connection, and leave a bounded log. The time
// for a first request does not end it here.
func TestFloodsOfFramesEndTheirConnection(t *testing.T) {
	var unknown []http2.Setting // as many as net/http takes: each frame is acknowledged, which takes long
	for i := range 100 {
		unknown = append(unknown, http2.Setting{ID: http2.SettingID(0xf000 + i)})
	}
	for _, test := range []struct {
		name string
		send func(s *stream2) error
		rule string // or "GOAWAY", or a rule that came before it, or empty, for net/http's own bound
	}{
		{"pings", func(s *stream2) error { return s.WritePing(false, [8]byte{}) }, ""},
		{"answers to no pings", func(s *stream2) error { return s.WritePing(true, [8]byte{}) }, "http2.overhead"},
		{"settings", func(s *stream2) error { return s.WriteSettings(unknown...) }, "http2.overhead"},
		{"priorities", func(s *stream2) error { return s.WritePriority(1, http2.PriorityParam{StreamDep: 3}) }, "http2.overhead"},
		{"unknown frames", func(s *stream2) error { return s.WriteRawFrame(0xfa, 0, 0, nil) }, "http2.overhead"},
		{"refused requests", func(s *stream2) error { _, err := s.request("GET", "/nothing", true, ":authority", "x"); return err }, "GOAWAY"},
		{"resets of refused requests", func(s *stream2) error { return s.reset("/nothing") }, "GOAWAY"},
		{"resets of health checks", func(s *stream2) error { return s.reset("/healthz") }, "GOAWAY"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := startSecureNode(t, "FANFARE_LIMITS_HANDSHAKE_TIMEOUT=10m")
			s := newStream2(t, n)
			for range 2_000_000 {
				if test.send(s) != nil {
					break
				}
			}
			e := <-s.ended
			switch test.rule {
			case "":
			case "GOAWAY":
				if !e.goAway {
					n.err.wait(t, "rule=http2.") // which closes at once
				}
			default:
				n.err.wait(t, "rule="+test.rule)
			}
			if e.responses > 2*mostUnauthenticated {
				t.Errorf("%d responses", e.responses)
			}
			if lines := strings.Count(n.err.String(), "\n"); lines > 50 {
				t.Errorf("%d lines of log", lines)
			}
		})
	}
}

// A server that has authenticated sends as many requests, and bodies, as it likes. But its
// frames that belong to no request are bounded all the same.
func TestAuthenticatedStreams(t *testing.T) {
	n := startSecureNode(t)
	const path = "/api/hubs/chat/:send"
	token := sign(t, accesskey.DevelopmentKey, "https://"+n.address+path, time.Now().Add(time.Hour))
	send := func(s *stream2, body []byte, end bool, fields ...string) (uint32, error) {
		id, err := s.request("POST", path+"?api-version=2024-12-01", false, append([]string{":authority", n.address, "content-type", "application/octet-stream",
			"authorization", "Bearer " + token}, fields...)...)
		for err == nil && len(body) > 0 {
			p := body[:min(len(body), 16<<10)]
			body = body[len(p):]
			err = s.WriteData(id, end && len(body) == 0, p)
		}
		if err == nil {
			err = s.out.Flush()
		}
		return id, err
	}
	authenticated := func(t *testing.T) *stream2 {
		s := newStream2(t, n)
		if _, err := send(s, []byte("x"), true); err != nil {
			t.Fatal(err)
		}
		if !s.awaits(1) {
			t.Fatal("no response")
		}
		return s
	}

	t.Run("bodies", func(t *testing.T) {
		web := http2Web()
		defer web.CloseIdleConnections()
		dialed := 0
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{ConnectStart: func(string, string) { dialed++ }})
		for range 8 * meterBurst >> 20 {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+n.address+path+"?api-version=2024-12-01", bytes.NewReader(make([]byte, 1<<20)))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "application/octet-stream")
			reply, err := web.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			reply.Body.Close()
			if reply.StatusCode != http.StatusAccepted || reply.ProtoMajor != 2 {
				t.Fatalf("%s, %s", reply.Status, reply.Proto)
			}
		}
		if dialed != 1 {
			t.Errorf("%d connections", dialed)
		}
	})
	t.Run("priorities", func(t *testing.T) {
		s := authenticated(t)
		for range 2_000_000 {
			if s.WritePriority(1, http2.PriorityParam{StreamDep: 3}) != nil {
				break
			}
		}
		<-s.ended
		n.err.wait(t, "rule=http2.overhead")
	})
	// net/http ends a connection with more requests than it can begin to serve, so these
	// come one after the other: the node asks for each body before its stream is reset.
	t.Run("resets", func(t *testing.T) {
		s := authenticated(t)
		for i := range 10 * resetBurst {
			id, err := send(s, nil, false, "expect", "100-continue")
			if err != nil || !s.awaits(i+2) || s.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				break
			}
		}
		s.out.Flush()
		<-s.ended
		n.err.wait(t, "rule=http2.resets")
	})
	t.Run("resets at once", func(t *testing.T) {
		s := authenticated(t)
		for range 10 * resetBurst {
			id, err := send(s, []byte("x"), false)
			if err != nil || s.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				break
			}
		}
		s.out.Flush()
		<-s.ended // by the same rule, or by net/http's own
	})
}
