package conformance_test

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"

	"github.com/fanfare/fanfare/transport/websocket/internal/conformance"
)

// defect is one thing that an echo server does wrong.
type defect string

// Each defect says what the server does.
const (
	none                defect = ""
	judgesUTF8Late      defect = "judges UTF-8 when a message is complete"
	judgesNoUTF8        defect = "takes text that is not UTF-8"
	takesUnmasked       defect = "takes frames that are not masked"
	takesRSV            defect = "takes reserved bits"
	takesReserved       defect = "takes reserved opcodes"
	takesLongControl    defect = "takes control frames of more than 125 bytes"
	takesControlParts   defect = "takes fragments of control frames"
	takesLongForms      defect = "takes lengths that are written in too many bytes"
	takesInterleaved    defect = "takes a message between the fragments of another"
	takesStray          defect = "takes continuations of nothing"
	takesRSVLater       defect = "takes continuations that say they are compressed"
	takesRSVControl     defect = "takes control frames that say they are compressed"
	takesBadCodes       defect = "takes close codes that must not be sent"
	takesHalfCode       defect = "takes half a close code"
	takesBadReason      defect = "takes reasons that are not UTF-8"
	answersNoPing       defect = "does not answer pings"
	answersPingEmpty    defect = "answers pings without their payload"
	answersPingLate     defect = "answers pings once the message is complete"
	answersNoClose      defect = "does not answer close frames"
	answersAfterClose   defect = "answers what comes after a close frame"
	keepsOpen           defect = "leaves it to the client to close the TCP connection"
	failsWith1000       defect = "closes with 1000 whatever was wrong"
	failsWithoutWord    defect = "closes without a close frame"
	dropsAnswers        defect = "drops what is to be sent when a rule is broken"
	dropsEmpty          defect = "drops empty messages"
	dropsFirstFragment  defect = "drops the first fragment"
	mixesKinds          defect = "answers text with binary messages"
	reads16BitLengths   defect = "takes no message of more than 65535 bytes"
	cutsAtLastBlock     defect = "ends a message at a block that says it is the last"
	ignoresJunk         defect = "ignores what does not decompress behind a last block"
	forgetsClientWindow defect = "forgets the client's window"
	keepsPlainInWindow  defect = "puts messages that are not compressed into the window"
	usesLargeWindow     defect = "uses a window of 32 KiB whatever was agreed"
	usesContext         defect = "uses its context though that was agreed not to be"
	namesTooMuch        defect = "names a parameter that was not offered"
	offersNoDeflate     defect = "does not accept compression"
	namesTooLittle      defect = "does not name server_no_context_takeover"
)

// echoServer is a small server that does all right but for its defect.
type echoServer struct {
	d defect
}

// start serves until the test ends.
func (s echoServer) start(t *testing.T) *conformance.Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer c.Close()
				e := &echo{Conn: c, d: s.d, r: bufio.NewReaderSize(c, 64<<10), w: bufio.NewWriterSize(c, 64<<10)}
				if e.handshake() {
					e.run()
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		open.Wait()
	})
	server := &conformance.Server{
		Dial:   func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) },
		Target: "/", Rounds: 4,
	}
	if s.d != none {
		server.Patience = patience
	}
	return server
}

// patience is how long a case waits for what a server with a defect does not send.
const patience = 5 * time.Second

// lull is how long a server with a defect waits for more of the client's.
const lull = patience / 5

// echo is one connection.
type echo struct {
	net.Conn
	d defect
	r *bufio.Reader
	w *bufio.Writer

	// Of the message under way.
	kind       byte // 0 for none
	compressed bool
	data       []byte
	valid      int      // bytes of data that are UTF-8
	pings      [][]byte // not yet answered

	deflate      bool
	bits         int
	clientWindow bool
	window       []byte
	out          bytes.Buffer
	deflater     *flate.Writer
	alone        bool // the server's messages
}

func (e *echo) is(d defect) bool { return e.d == d }

func (e *echo) handshake() bool {
	req, err := http.ReadRequest(e.r)
	if err != nil {
		return false
	}
	sum := sha1.Sum([]byte(req.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n"
	offer, _, _ := strings.Cut(req.Header.Get("Sec-Websocket-Extensions"), ",")
	if offer != "" && !e.is(offersNoDeflate) {
		answer += "Sec-WebSocket-Extensions: " + e.accept(offer) + "\r\n"
	}
	_, err = io.WriteString(e.Conn, answer+"\r\n")
	return err == nil
}

func (e *echo) accept(offer string) string {
	e.deflate, e.bits, e.clientWindow = true, 15, true
	answer := "permessage-deflate"
	for p := range strings.SplitSeq(offer, ";") {
		p = strings.TrimSpace(p)
		name, value, _ := strings.Cut(p, "=")
		switch name {
		case "server_max_window_bits":
			e.bits, _ = strconv.Atoi(value)
		case "server_no_context_takeover":
			e.alone = true
			if e.is(namesTooLittle) {
				continue
			}
		case "client_no_context_takeover":
			e.clientWindow = false
		default:
			continue
		}
		answer += "; " + p
	}
	if e.clientWindow && e.is(namesTooMuch) {
		answer += "; client_no_context_takeover"
	}
	if e.bits == 15 || e.is(usesLargeWindow) {
		e.deflater, _ = flate.NewWriter(&e.out, 5)
	} else {
		e.deflater, _ = flate.NewWriterWindow(&e.out, 1<<e.bits)
	}
	return answer
}

// run reads frames until the connection ends.
func (e *echo) run() {
	for {
		e.flush()
		op, code, ok := e.frame()
		switch {
		case !ok:
			return
		case code != 0:
			e.fail(code)
			return
		case op == 8:
			if e.is(answersAfterClose) {
				e.SetReadDeadline(time.Now().Add(lull))
				for ok && code == 0 {
					_, code, ok = e.frame()
				}
				e.w.Flush()
			}
			e.end()
			return
		}
	}
}

// flush sends what is due, unless more has come in.
func (e *echo) flush() {
	if e.is(dropsAnswers) && e.w.Buffered() > 0 {
		e.SetReadDeadline(time.Now().Add(lull))
		_, err := e.r.Peek(2)
		e.SetReadDeadline(time.Time{})
		if err == nil {
			return
		}
	}
	if e.r.Buffered() < 2 {
		e.w.Flush()
	}
}

// fail ends the connection because a rule was broken.
func (e *echo) fail(code int) {
	if e.is(dropsAnswers) {
		e.w.Reset(e.Conn)
	}
	if e.is(failsWith1000) {
		code = 1000
	}
	if e.is(failsWithoutWord) {
		e.end()
		return
	}
	e.send(0x88, binary.BigEndian.AppendUint16(nil, uint16(code)))
	e.end()
}

// end closes the connection once all was sent.
func (e *echo) end() {
	e.w.Flush()
	if !e.is(keepsOpen) {
		e.Conn.(*net.TCPConn).CloseWrite()
	}
	e.SetReadDeadline(time.Now().Add(2 * patience))
	io.Copy(io.Discard, e.r)
}

// frame reads a frame and acts on it. code is not 0 if it breaks a rule.
func (e *echo) frame() (op byte, code int, ok bool) {
	var h [2]byte
	if _, err := io.ReadFull(e.r, h[:]); err != nil {
		return 0, 0, false
	}
	fin, rsv, op := h[0]&0x80 != 0, h[0]>>4&7, h[0]&0xf
	control, known := op >= 8, op <= 2 || op >= 8 && op <= 10
	rsvOK := rsv == 0 || rsv == 4 && e.deflate && (op == 1 || op == 2 ||
		op == 0 && e.is(takesRSVLater) || control && e.is(takesRSVControl))
	length, form := int(h[1]&0x7f), 0
	switch {
	case !rsvOK && !e.is(takesRSV), !known && !e.is(takesReserved), h[1]&0x80 == 0 && !e.is(takesUnmasked),
		control && !fin && !e.is(takesControlParts), control && length > 125 && !e.is(takesLongControl):
		return op, 1002, true
	}
	switch length {
	case 126:
		form = 2
	case 127:
		form = 8
	}
	if form > 0 {
		var ext [8]byte
		if _, err := io.ReadFull(e.r, ext[8-form:]); err != nil {
			return 0, 0, false
		}
		length = int(binary.BigEndian.Uint64(ext[:]))
		if length < 0 || !e.is(takesLongForms) && (form == 2 && length < 126 || form == 8 && length < 1<<16) {
			return op, 1002, true
		}
		if e.is(reads16BitLengths) && form == 8 {
			return op, 1009, true
		}
	}
	var key [4]byte
	if h[1]&0x80 != 0 {
		if _, err := io.ReadFull(e.r, key[:]); err != nil {
			return 0, 0, false
		}
	}
	if !control && known {
		if code := e.begin(op, rsv == 4 && e.deflate); code != 0 {
			return op, code, true
		}
	}
	return e.payload(op, fin, known, length, key)
}

// begin checks that a data frame may come now.
func (e *echo) begin(op byte, compressed bool) (code int) {
	switch {
	case op == 0 && e.kind == 0:
		if !e.is(takesStray) {
			return 1002
		}
		e.kind = 1
	case op != 0 && e.kind != 0 && !e.is(takesInterleaved):
		return 1002
	case op != 0:
		e.kind, e.compressed = op, compressed
	}
	return 0
}

func (e *echo) payload(op byte, fin, known bool, length int, key [4]byte) (byte, int, bool) {
	data := op <= 2 && known
	var p []byte
	for at := 0; at < length; {
		chunk := make([]byte, min(length-at, 64<<10))
		n, err := e.r.Read(chunk)
		if err != nil {
			return 0, 0, false
		}
		for i := range chunk[:n] {
			chunk[i] ^= key[(at+i)%4]
		}
		at += n
		if !data {
			p = append(p, chunk[:n]...)
			continue
		}
		e.data = append(e.data, chunk[:n]...)
		if e.kind == 1 && !e.compressed && !e.is(judgesUTF8Late) && !e.is(judgesNoUTF8) && !e.mayBecomeUTF8() {
			return op, 1007, true
		}
	}
	switch {
	case !known:
	case data && fin:
		return op, e.message(), true
	case data && e.is(dropsFirstFragment) && op != 0:
		e.data, e.valid = nil, 0
	case op == 9 && e.is(answersPingLate) && e.kind != 0:
		e.pings = append(e.pings, p)
	case op == 9:
		e.pong(p)
	case op == 8:
		code, ok := e.goodbye(p)
		return op, code, ok
	}
	return op, 0, true
}

func (e *echo) pong(p []byte) {
	if e.is(answersPingEmpty) {
		p = nil
	}
	if !e.is(answersNoPing) {
		e.send(0x8a, p)
	}
}

// mayBecomeUTF8 reports whether the message is UTF-8 so far, but for an end that is cut.
func (e *echo) mayBecomeUTF8() bool {
	rest := e.data[e.valid:]
	for cut := range min(utf8.UTFMax, len(rest)+1) {
		at := len(rest) - cut
		if utf8.Valid(rest[:at]) {
			e.valid += at
			return cut == 0 || utf8.RuneStart(rest[at]) && !utf8.FullRune(rest[at:])
		}
	}
	return false
}

// message gives the message back that is complete now.
func (e *echo) message() (code int) {
	p, kind := e.data, e.kind
	compressed := e.compressed
	e.data, e.kind, e.compressed, e.valid = nil, 0, false, 0
	if compressed {
		var err error
		if p, err = e.inflate(p); err != nil {
			return 1007
		}
	} else if e.is(keepsPlainInWindow) {
		e.window = append(e.window, p...)
	}
	if kind == 1 && !e.is(judgesNoUTF8) && !utf8.Valid(p) {
		return 1007
	}
	if len(p) > 0 || !e.is(dropsEmpty) {
		if e.is(mixesKinds) {
			kind = 2
		}
		if e.deflate {
			e.send(0xc0|kind, e.compress(p))
		} else {
			e.send(0x80|kind, p)
		}
	}
	for _, p := range e.pings {
		e.pong(p)
	}
	e.pings = nil
	return 0
}

func (e *echo) inflate(p []byte) ([]byte, error) {
	end := []byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff}
	in := bytes.NewReader(slices.Concat(p, end))
	var out []byte
	for in.Len() > 0 {
		dict := slices.Concat(e.window, out)
		b, err := io.ReadAll(flate.NewReaderDict(in, dict[max(0, len(dict)-1<<15):]))
		if len(out) > 0 && err != nil && e.is(ignoresJunk) {
			break
		}
		out = append(out, b...)
		if err != nil {
			return nil, err
		}
		if e.is(cutsAtLastBlock) {
			break
		}
	}
	if e.clientWindow && !e.is(forgetsClientWindow) {
		e.window = append(e.window, out...)
		e.window = e.window[max(0, len(e.window)-1<<15):]
	}
	return out, nil
}

func (e *echo) compress(p []byte) []byte {
	e.out.Reset()
	if e.alone && !e.is(usesContext) {
		e.deflater.Reset(&e.out)
	}
	e.deflater.Write(p)
	e.deflater.Flush()
	return bytes.TrimSuffix(e.out.Bytes(), []byte{0, 0, 0xff, 0xff})
}

// goodbye answers a close frame.
func (e *echo) goodbye(p []byte) (code int, ok bool) {
	if e.is(answersNoClose) {
		return 0, false
	}
	if len(p) == 1 {
		if !e.is(takesHalfCode) {
			return 1002, true
		}
		p = []byte{3, 232}
	}
	if len(p) >= 2 {
		c := int(binary.BigEndian.Uint16(p))
		valid := c >= 1000 && c <= 1003 || c >= 1007 && c <= 1014 || c >= 3000 && c <= 4999
		if !valid && !e.is(takesBadCodes) {
			return 1002, true
		}
		if !utf8.Valid(p[2:]) && !e.is(takesBadReason) {
			return 1007, true
		}
		p = p[:2]
	} else {
		p = nil
	}
	e.send(0x88, p)
	return 0, true
}

func (e *echo) send(first byte, p []byte) {
	h := []byte{first}
	switch {
	case len(p) < 126:
		h = append(h, byte(len(p)))
	case len(p) < 1<<16:
		h = binary.BigEndian.AppendUint16(append(h, 126), uint16(len(p)))
	default:
		h = binary.BigEndian.AppendUint64(append(h, 127), uint64(len(p)))
	}
	e.w.Write(h)
	e.w.Write(p)
}
