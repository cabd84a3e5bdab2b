package conformance

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"
)

// client is the client's end of a connection.
type client struct {
	net.Conn
	r    *bufio.Reader
	come chan incoming
	done chan struct{}
	time *time.Timer

	// Of permessage-deflate.
	deflate bool
	server  params
	client  params
	in      inflater
	before  []byte // the end of what the server's compressed messages became
}

// params are what was agreed for one direction.
type params struct {
	window int // in bytes
	alone  bool
}

// incoming is a frame or a message of the server.
type incoming struct {
	op         byte
	compressed bool
	payload    []byte
	err        error // the connection has ended
	broken     bool  // because of what the server sent
}

// connect dials and makes the handshake.
func (r *run) connect() error {
	conn, err := r.server.Dial()
	if err != nil {
		return err
	}
	conn.SetDeadline(time.Now().Add(r.patience))
	request := "GET " + r.server.Target + " HTTP/1.1\r\nHost: conformance.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	if r.Offer != "" {
		request += "Sec-WebSocket-Extensions: " + r.Offer + "\r\n"
	}
	c := &client{Conn: conn, r: bufio.NewReaderSize(conn, 64<<10), come: make(chan incoming, 16), done: make(chan struct{})}
	_, err = io.WriteString(conn, request+"\r\n")
	var res *http.Response
	if err == nil {
		res, err = http.ReadResponse(c.r, nil) //nolint:bodyclose // 101 has none
	}
	switch {
	case err != nil:
	case res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=":
		err = fmt.Errorf("the handshake was answered with %s", res.Status)
	default:
		err = c.agree(r.Offer, res.Header.Get("Sec-Websocket-Extensions"))
	}
	if err != nil {
		conn.Close()
		return err
	}
	conn.SetDeadline(time.Time{})
	r.conn = c
	go c.read()
	return nil
}

// agree reads the answer to an offer of permessage-deflate (RFC 7692 section 7.1), which
// must name what was asked for and nothing that was not offered.
func (c *client) agree(offer, answer string) error {
	c.server, c.client = params{window: 1 << 15}, params{window: 1 << 15}
	if offer == "" || answer == "" {
		if offer != answer {
			return fmt.Errorf("the offer %q was answered with %q", offer, answer)
		}
		return nil
	}
	c.deflate = true
	var names []string
	for i, p := range strings.Split(answer, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		bits := 15
		if _, err := fmt.Sscan(value, &bits); value != "" && (err != nil || bits < 8 || bits > 15) {
			return fmt.Errorf("the answer %q has a window that does not exist", answer)
		}
		names = append(names, name)
		switch {
		case i == 0 && name == "permessage-deflate":
		case i > 0 && name == "server_no_context_takeover":
			c.server.alone = true
		case i > 0 && name == "client_no_context_takeover":
			c.client.alone = true
		case i > 0 && name == "server_max_window_bits":
			c.server.window = 1 << bits
		case i > 0 && name == "client_max_window_bits":
			c.client.window = 1 << bits
		default:
			return fmt.Errorf("the answer %q has the parameter %q", answer, name)
		}
	}
	for o := range strings.SplitSeq(offer, ",") {
		if answers(o, names, c.server.window) {
			return nil
		}
	}
	return fmt.Errorf("%q is no answer to the offer %q", answer, offer)
}

// answers reports whether an answer with the parameters names, and that window of the
// server, is one to the offer.
func answers(offer string, names []string, window int) bool {
	offered := map[string]bool{}
	for p := range strings.SplitSeq(offer, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		offered[name] = true
		bits := 15
		fmt.Sscan(value, &bits) //nolint:errcheck // the offer is the suite's own
		if name == "server_max_window_bits" && window > 1<<bits {
			return false
		}
	}
	said := map[string]bool{}
	for _, name := range names {
		if said[name] || !offered[name] {
			return false
		}
		said[name] = true
	}
	return !offered["server_no_context_takeover"] || said["server_no_context_takeover"]
}

func (c *client) Close() error {
	close(c.done)
	return c.Conn.Close()
}

// next returns what has come, or reports false after patience.
func (c *client) next(patience time.Duration) (incoming, bool) {
	select {
	case m := <-c.come:
		return m, true
	default:
	}
	if c.time == nil {
		c.time = time.NewTimer(patience)
	} else {
		c.time.Reset(patience)
	}
	defer c.time.Stop()
	select {
	case m := <-c.come:
		return m, true
	case <-c.time.C:
		return incoming{}, false
	}
}

// read passes on what comes until the connection has ended.
func (c *client) read() {
	for {
		m := c.message()
		select {
		case c.come <- m:
		case <-c.done:
			return
		}
		if m.err != nil {
			return
		}
	}
}

// message reads a message, or a control frame. A server need not send fragments, and one
// that does may not send control frames between them: no case needs that.
func (c *client) message() (m incoming) {
	for first := true; ; first = false {
		more, err := c.frame(&m, first)
		if err != nil {
			m.err = err
			m.broken = errors.Is(err, errBroken)
			return m
		}
		if !more {
			return m
		}
	}
}

var errBroken = errors.New("a rule is broken")

func (c *client) frame(m *incoming, first bool) (more bool, err error) {
	var h [8]byte
	if _, err := io.ReadFull(c.r, h[:2]); err != nil {
		return false, err
	}
	op, rsv, length := h[0]&0xf, h[0]>>4&7, uint64(h[1]&0x7f)
	more = h[0]&0x80 == 0
	extra := 0
	switch length {
	case 126:
		extra = 2
	case 127:
		extra = 8
	}
	if h[1]&0x80 != 0 {
		return false, fmt.Errorf("%w: a masked frame", errBroken)
	}
	if extra > 0 {
		if _, err := io.ReadFull(c.r, h[8-extra:]); err != nil {
			return false, err
		}
		clear(h[:8-extra])
		length = binary.BigEndian.Uint64(h[:])
	}
	switch {
	case op >= opClose && (more || length > 125 || op > opPong || rsv != 0 || !first),
		op < opClose && op > opBinary, first == (op == opContinuation),
		rsv != 0 && (rsv != 4 || !first || !c.deflate), length > 1<<26:
		return false, fmt.Errorf("%w: opcode %x, reserved bits %d, %d bytes, more %v", errBroken, op, rsv, length, more)
	}
	if first {
		m.op, m.compressed = op, rsv == 4
	}
	at := len(m.payload)
	m.payload = append(m.payload, make([]byte, length)...)
	_, err = io.ReadFull(c.r, m.payload[at:])
	return more, err
}

// inflate decompresses a message of the server, which may refer to no more than was
// agreed. What it returns is valid until the next call.
func (c *client) inflate(p []byte) ([]byte, error) {
	out, _, err := c.in.inflate(p, c.before, c.server.window)
	if err == nil {
		c.remember(out)
	}
	return out, err
}

// remember notes what a compressed message became, for the next one.
func (c *client) remember(p []byte) {
	if c.server.alone {
		return
	}
	if len(p) >= c.server.window {
		c.before = append(c.before[:0], p[len(p)-c.server.window:]...)
		return
	}
	c.before = append(c.before, p...)
	if drop := len(c.before) - c.server.window; drop > 0 {
		c.before = c.before[:copy(c.before, c.before[drop:])]
	}
}

// compressor compresses a client's messages.
type compressor struct {
	out bytes.Buffer
	w   *flate.Writer
	p   params
}

func newCompressor(p params) *compressor {
	c := &compressor{p: p}
	if p.window == 1<<15 {
		c.w, _ = flate.NewWriter(&c.out, flate.BestSpeed)
	} else {
		c.w, _ = flate.NewWriterWindow(&c.out, p.window)
	}
	return c
}

// compress returns the payload of a message.
func (c *compressor) compress(p []byte) []byte {
	c.out.Reset()
	if c.p.alone {
		c.w.Reset(&c.out)
	}
	c.w.Write(p) //nolint:errcheck // into memory
	c.w.Flush()
	return bytes.TrimSuffix(bytes.Clone(c.out.Bytes()), []byte{0, 0, 0xff, 0xff})
}
