package conformance

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"time"
)

// Server is what cases are run against.
type Server struct {
	// Dial opens a connection.
	Dial func() (net.Conn, error)
	// Target is what the handshake asks for, such as "/echo".
	Target string
	// Patience is how long the server may take for anything. Default: 30 s.
	Patience time.Duration
	// Rounds replaces the number of rounds of the cases that have them, if it is not
	// 0, for where 1000 take too long.
	Rounds int
}

// Verdict is what a case says of a server.
type Verdict string

// The verdicts.
const (
	OK        Verdict = "ok"
	NonStrict Verdict = "non-strict"
	Failed    Verdict = "failed"
)

// Result is what came of a case.
type Result struct {
	Verdict Verdict
	// Why says what came instead; empty for OK.
	Why string
}

// Run carries out c against s. cache may be nil, or be shared by cases one after the
// other: what a server has been shown to send for a message need not be looked at again.
func Run(s *Server, c *Case, cache *Cache) Result {
	r := &run{Case: c, server: s, cache: cache, patience: s.Patience, code: noCode}
	if r.patience == 0 {
		r.patience = 30 * time.Second
	}
	if r.cache == nil {
		r.cache = NewCache()
	}
	if err := r.connect(); err != nil {
		return Result{Failed, err.Error()}
	}
	defer r.conn.Close()
	r.play()
	return r.result()
}

// noCode stands for a close frame without a status.
const noCode = -1

// run is one case under way.
type run struct {
	*Case
	server   *Server
	cache    *Cache
	patience time.Duration

	conn *client
	got  []Event
	slow bool   // the server did not fail fast
	bad  string // what went wrong first

	sentClose bool
	closed    bool // the server's close frame has come
	byServer  bool // and was no answer
	code      int  // of it; noCode for none
	eof       bool
}

func (r *run) fail(format string, args ...any) {
	if r.bad == "" {
		r.bad = fmt.Sprintf(format, args...)
	}
}

// play does all that the client does, until the connection has ended.
func (r *run) play() {
	for i := range r.Steps {
		if r.over() {
			break
		}
		r.step(&r.Steps[i])
	}
	if r.Rounds != nil {
		r.rounds()
	}
	for r.bad == "" && !r.eof {
		if r.End.ByClient && !r.sentClose && !r.closed && len(r.got) >= len(r.Want) {
			r.close(codeNormal)
		}
		if !r.next(r.patience) {
			r.fail("nothing came within %s, after %s", r.patience, r.state())
		}
	}
}

// over reports whether the client has nothing more to send.
func (r *run) over() bool { return r.bad != "" || r.closed || r.eof }

func (r *run) state() string {
	switch {
	case r.closed:
		return "the close frames, of the end of the TCP connection"
	case r.sentClose:
		return "the client's close frame"
	}
	return fmt.Sprintf("%d of %d events", len(r.got), len(r.Want))
}

func (r *run) step(s *Step) {
	switch {
	case s.Await > 0:
		for len(r.got) < s.Await && !r.over() {
			if !r.next(r.patience) {
				r.fail("%d events came before the client went on, expected %d", len(r.got), s.Await)
			}
		}
	case s.Quiet:
		if r.next(quiet) {
			r.fail("the server gave up too early, or said something: %s", r.came())
		}
	case s.FailFast:
		if !r.next(min(r.patience, failFast)) {
			r.slow = true
		}
	default:
		r.send(s)
	}
}

const (
	// quiet is how long a server has to give up where it should not. One that takes
	// longer is not found out.
	quiet = 100 * time.Millisecond
	// failFast is how long one has to give up where it should.
	failFast = 5 * time.Second
)

func (r *run) send(s *Step) {
	var b []byte
	var ends []int
	for i := range s.Frames {
		b = s.Frames[i].append(b)
		ends = append(ends, len(b))
		// A frame with reserved bits is none that says goodbye.
		if s.Frames[i].Op == opClose && s.Frames[i].RSV == 0 {
			r.sentClose = true
		}
	}
	b = append(b, s.Raw...)
	if !s.Apart {
		ends = ends[:0]
		for at := s.Chop; s.Chop > 0 && at < len(b); at += s.Chop {
			ends = append(ends, at)
		}
		ends = append(ends, len(b))
	}
	from := 0
	for _, to := range ends {
		if r.write(b[from:to]) != nil {
			return // what has come says why
		}
		from = to
	}
}

func (r *run) write(p []byte) error {
	r.conn.SetWriteDeadline(time.Now().Add(r.patience))
	_, err := r.conn.Write(p)
	return err
}

// close sends a close frame.
func (r *run) close(code int) {
	f := Frame{Op: opClose}
	if code != noCode {
		f.Payload = binary.BigEndian.AppendUint16(nil, uint16(code))
	}
	r.sentClose = true
	r.write(f.append(nil)) //nolint:errcheck // the server may have closed already
}

// next waits for what comes next and reports whether anything did.
func (r *run) next(patience time.Duration) bool {
	m, ok := r.conn.next(patience)
	if !ok {
		return false
	}
	switch {
	case m.err != nil:
		r.eof = true
		if m.broken {
			r.fail("the server's bytes are no WebSocket frames: %v", m.err)
		}
	case r.closed:
		r.fail("a frame after the server's close frame: opcode %x, %d bytes", m.op, len(m.payload))
	case m.op == opClose:
		r.closed, r.byServer = true, !r.sentClose
		if len(m.payload) >= 2 {
			r.code = int(binary.BigEndian.Uint16(m.payload))
		}
		if !r.sentClose {
			r.close(r.code)
		}
	default:
		r.event(m)
	}
	return true
}

func (r *run) event(m incoming) {
	kind := map[byte]EventKind{opText: Text, opBinary: Binary, opPing: Ping, opPong: Pong}[m.op]
	payload := m.payload
	if m.compressed {
		var err error
		if payload, err = r.conn.inflate(payload); err != nil {
			r.fail("a compressed message that does not decompress: %v", err)
			return
		}
	}
	r.got = append(r.got, Event{kind, slices.Clone(payload)})
}

// came says what has come, in short.
func (r *run) came() string {
	s := fmt.Sprint(r.got)
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	switch {
	case r.closed && r.byServer:
		s += fmt.Sprintf(", then the server closed with %d", r.code)
	case r.closed:
		s += fmt.Sprintf(", then it answered the close frame with %d", r.code)
	case r.eof:
		s += ", then the connection ended"
	}
	return s
}

// result judges what came.
func (r *run) result() Result {
	if r.Informational {
		if !r.eof && r.bad != "" {
			return Result{Failed, r.bad}
		}
		return Result{OK, ""}
	}
	verdict := OK
	switch {
	case r.bad != "":
	case slices.EqualFunc(r.got, r.Want, Event.equal):
	case r.Less != nil && slices.EqualFunc(r.got, r.Less, Event.equal):
		verdict = NonStrict
	default:
		r.fail("came: %s; expected %v", r.came(), r.Want)
	}
	if r.bad == "" {
		r.judgeEnd()
	}
	switch {
	case r.bad != "":
		return Result{Failed, r.bad}
	case r.slow:
		return Result{NonStrict, "text that is not UTF-8 was refused late"}
	case verdict == NonStrict:
		return Result{NonStrict, "came: " + r.came()}
	}
	return Result{OK, ""}
}

func (r *run) judgeEnd() {
	switch {
	case r.End.ByClient && r.byServer:
		r.fail("the server closed, with %d; expected the client to", r.code)
	case !r.End.ByClient && r.sentClose && !r.byServer:
		r.fail("the client closed; expected the server to")
	case r.End.Clean && !r.closed:
		r.fail("the connection ended without a close frame of the server")
	case r.closed && r.code != noCode && !slices.Contains(r.End.Codes, r.code):
		r.fail("the server's close frame has the status %d, expected one of %v or none", r.code, r.End.Codes)
	}
}
