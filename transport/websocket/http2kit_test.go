package websocket_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fanfare/fanfare/transport/transporttest"
)

// h2client is a client's end of an HTTP/2 connection. It gives the server little
// room, and keeps to the room that the server gives.
type h2client struct {
	net.Conn
	framer *http2.Framer
	writes sync.Mutex // guards framer and the encoder

	mu      sync.Mutex // guards the rest
	changed *sync.Cond
	connect bool // the server takes an extended CONNECT
	room    int  // for data to the server, of the connection
	initial int  // for a new stream
	streams map[uint32]*h2stream
	next    uint32
	err     error
}

const h2window = 32 << 10

// h2stream is one stream of an h2client, as a net.Conn.
type h2stream struct {
	*h2client
	id       uint32
	room     int
	status   string
	header   http.Header
	data     bytes.Buffer
	ended    bool  // by the server
	reset    error // by the server
	deadline time.Time
}

// h2dial begins an HTTP/2 connection over c and waits for the server's settings.
func h2dial(c net.Conn) (*h2client, error) {
	h := &h2client{Conn: c, framer: http2.NewFramer(c, bufio.NewReader(c)), room: 65535, initial: 65535, streams: map[uint32]*h2stream{}, next: 1}
	h.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.changed = sync.NewCond(&h.mu)
	h.writes.Lock() // nothing precedes the preface
	go h.read()     // ends with c
	_, err := io.WriteString(c, http2.ClientPreface)
	err = errors.Join(err, h.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: h2window}, http2.Setting{ID: http2.SettingEnablePush, Val: 0}))
	h.writes.Unlock()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for !h.connect && h.err == nil {
		h.changed.Wait()
	}
	return h, h.err
}

func (h *h2client) read() {
	for {
		f, err := h.framer.ReadFrame()
		if err != nil {
			h.mu.Lock()
			h.err = err
			h.mu.Unlock()
			h.changed.Broadcast()
			return
		}
		h.frame(f)
		h.changed.Broadcast()
	}
}

func (h *h2client) frame(f http2.Frame) {
	h.mu.Lock()
	s := h.streams[f.Header().StreamID]
	var answer func() error
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			break
		}
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
			h.initial = int(v)
		}
		if v, _ := f.Value(http2.SettingEnableConnectProtocol); v == 1 {
			h.connect = true
		} else {
			h.err = errors.New("the server takes no extended CONNECT")
		}
		answer = h.framer.WriteSettingsAck
	case *http2.PingFrame:
		if !f.IsAck() {
			data := f.Data
			answer = func() error { return h.framer.WritePing(true, data) }
		}
	case *http2.WindowUpdateFrame:
		if s != nil {
			s.room += int(f.Increment)
		} else if f.StreamID == 0 {
			h.room += int(f.Increment)
		}
	case *http2.MetaHeadersFrame:
		if s != nil {
			s.header = http.Header{}
			for _, field := range f.RegularFields() {
				s.header.Add(field.Name, field.Value)
			}
			s.status, s.ended = f.PseudoValue("status"), s.ended || f.StreamEnded()
		}
	case *http2.DataFrame:
		if s != nil {
			s.data.Write(f.Data())
			s.ended = s.ended || f.StreamEnded()
		}
	case *http2.RSTStreamFrame:
		if s != nil && !s.ended {
			s.reset = fmt.Errorf("stream reset: %s", f.ErrCode)
		}
	}
	h.mu.Unlock()
	if answer != nil {
		h.writes.Lock()
		answer()
		h.writes.Unlock()
	}
}

// request begins a stream and waits for the answer's headers. A header whose value
// is empty is left out.
func (h *h2client) request(header map[string]string, end bool) (*h2stream, error) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, pseudo := range []bool{true, false} {
		for name, value := range header {
			if strings.HasPrefix(name, ":") == pseudo && value != "" {
				e.WriteField(hpack.HeaderField{Name: strings.ToLower(name), Value: value})
			}
		}
	}
	h.mu.Lock()
	s := &h2stream{h2client: h, id: h.next, room: h.initial}
	h.next += 2
	h.streams[s.id] = s
	h.mu.Unlock()
	h.writes.Lock()
	err := h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
	h.writes.Unlock()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for s.status == "" && s.reset == nil && h.err == nil {
		h.changed.Wait()
	}
	return s, errors.Join(s.reset, h.err)
}

// websocket begins a WebSocket on a stream of its own.
func (h *h2client) websocket(target string, more map[string]string) (*h2stream, error) {
	header := map[string]string{
		":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": target, ":authority": "example.test", "sec-websocket-version": "13",
	}
	maps.Copy(header, more)
	return h.request(header, false)
}

func (s *h2stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	if !s.deadline.IsZero() {
		defer time.AfterFunc(time.Until(s.deadline), s.changed.Broadcast).Stop()
	}
	for s.data.Len() == 0 {
		switch {
		case s.ended:
			s.mu.Unlock()
			return 0, io.EOF
		case s.reset != nil || s.err != nil:
			err := errors.Join(s.reset, s.err)
			s.mu.Unlock()
			return 0, err
		case !s.deadline.IsZero() && !time.Now().Before(s.deadline):
			s.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		}
		s.changed.Wait()
	}
	n, _ := s.data.Read(p)
	ended := s.ended
	s.mu.Unlock()
	s.writes.Lock()
	s.framer.WriteWindowUpdate(0, uint32(n))
	if !ended {
		s.framer.WriteWindowUpdate(s.id, uint32(n))
	}
	s.writes.Unlock()
	return n, nil
}

func (s *h2stream) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		s.mu.Lock()
		for (s.room <= 0 || s.h2client.room <= 0) && s.err == nil && s.reset == nil && !s.ended {
			s.changed.Wait()
		}
		if err := errors.Join(s.err, s.reset); err != nil || s.ended {
			s.mu.Unlock()
			return sent, errors.Join(err, io.ErrClosedPipe)
		}
		n := min(len(p)-sent, s.room, s.h2client.room, 16<<10)
		s.room -= n
		s.h2client.room -= n
		s.mu.Unlock()
		s.writes.Lock()
		err := s.framer.WriteData(s.id, false, p[sent:sent+n])
		s.writes.Unlock()
		if err != nil {
			return sent, err
		}
		sent += n
	}
	return len(p), nil
}

// end says that no more will come, as the end of a TCP connection does.
func (s *h2stream) end() error {
	s.writes.Lock()
	defer s.writes.Unlock()
	return s.framer.WriteData(s.id, true, nil)
}

// cancel cuts the stream, and leaves the connection.
func (s *h2stream) cancel() error {
	s.writes.Lock()
	defer s.writes.Unlock()
	return s.framer.WriteRSTStream(s.id, http2.ErrCodeCancel)
}

func (s *h2stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	return nil
}

func (s *h2stream) SetWriteDeadline(time.Time) error { return nil }
func (s *h2stream) SetDeadline(t time.Time) error    { return s.SetReadDeadline(t) }

// h2dial is dial over HTTP/2. Unless the answer is 200 it returns no client, and the
// status with the body.
func (s *server) h2dial(t testing.TB, target, protocols string, header http.Header) (*conn, string) {
	t.Helper()
	c, err := s.connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	h, err := h2dial(c)
	if err != nil {
		t.Fatal(err)
	}
	return h.conn(t, target, protocols, header)
}

// conn begins a WebSocket on a stream of h.
func (h *h2client) conn(t testing.TB, target, protocols string, header http.Header) (*conn, string) {
	t.Helper()
	more := map[string]string{"sec-websocket-protocol": protocols}
	for name, values := range header {
		more[name] = strings.Join(values, ", ")
	}
	stream, err := h.websocket(target, more)
	if err != nil {
		t.Fatalf("the answer to %s: %v", target, err)
	}
	stream.SetDeadline(time.Now().Add(patience))
	if stream.status != "200" {
		body, _ := io.ReadAll(stream)
		return nil, stream.status + " " + string(body)
	}
	for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept", "Content-Type", "Content-Length"} {
		if v := stream.header[name]; v != nil {
			t.Fatalf("the answer has the header %s: %q", name, v)
		}
	}
	return &conn{
		t: t, Conn: stream, r: bufio.NewReader(stream),
		protocol: stream.header.Get("Sec-Websocket-Protocol"),
		deflated: strings.HasPrefix(stream.header.Get("Sec-Websocket-Extensions"), "permessage-deflate"),
	}, ""
}

var _ transporttest.Client = (*conn)(nil)
