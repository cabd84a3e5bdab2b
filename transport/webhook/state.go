package webhook

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// maxState bounds a connection state, in bytes. Azure states no figure; common
// servers take 8 to 32 KiB of headers in all, and it is sent in one.
const maxState = 16 << 10

// state is what a server attached to a connection: the connection state, and
// the cookies. Its encoded form is the connection's engine.HandlerState.
type state struct {
	// has tells an empty connection state from none.
	has     bool
	text    string
	cookies []cookie
}

// The encoded form:
//
//	state   = version flags [text] count cookie*
//	cookie  = flags name value domain path expires
//	text, name, value, domain, path = uvarint length, bytes
//	expires = varint, Unix milliseconds; 0 for a cookie without an end
const (
	stateVersion = 0xFE // in no UTF-8 text, so that foreign bytes are seldom taken for ours

	flagHas = 1 << 0

	flagHostOnly = 1 << 0
	flagSecure   = 1 << 1
	flagQuoted   = 1 << 2
)

var errState = errors.New("webhook: not a handler state of this package")

// encode returns nil for a state that holds nothing.
func (s *state) encode() engine.HandlerState {
	if !s.has && len(s.cookies) == 0 {
		return nil
	}
	size := 2 + binary.MaxVarintLen64*2 + len(s.text)
	for i := range s.cookies {
		size += s.cookies[i].size() + 1 + 5*binary.MaxVarintLen32
	}
	b := make([]byte, 0, size)
	flags := byte(0)
	if s.has {
		flags |= flagHas
	}
	b = append(b, stateVersion, flags)
	if s.has {
		b = appendText(b, s.text)
	}
	b = binary.AppendUvarint(b, uint64(len(s.cookies)))
	for i := range s.cookies {
		c := &s.cookies[i]
		flags := byte(0)
		if c.hostOnly {
			flags |= flagHostOnly
		}
		if c.secure {
			flags |= flagSecure
		}
		if c.quoted {
			flags |= flagQuoted
		}
		b = append(b, flags)
		for _, t := range [...]string{c.name, c.value, c.domain, c.path} {
			b = appendText(b, t)
		}
		b = binary.AppendVarint(b, c.expires)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// decodeState reads what encode wrote. No bytes are a state that holds nothing.
func decodeState(h engine.HandlerState) (*state, error) {
	s := &state{}
	if len(h) == 0 {
		return s, nil
	}
	r := reader{rest: h}
	if r.byte() != stateVersion {
		return nil, errState
	}
	flags := r.byte()
	if flags&^flagHas != 0 {
		return nil, errState
	}
	if flags&flagHas != 0 {
		s.has, s.text = true, r.text(maxState)
	}
	n := r.uvarint()
	if r.bad || n > maxCookies {
		return nil, errState
	}
	for range n {
		flags := r.byte()
		if flags&^(flagHostOnly|flagSecure|flagQuoted) != 0 {
			return nil, errState
		}
		c := cookie{
			hostOnly: flags&flagHostOnly != 0, secure: flags&flagSecure != 0, quoted: flags&flagQuoted != 0,
			name: r.text(maxCookie), value: r.text(maxCookie), domain: r.text(maxCookie), path: r.text(maxCookie),
			expires: r.varint(),
		}
		// What goes into a header must be what came out of one.
		if r.bad || !isToken(c.name) || c.name == "" || !isPrintable(c.value) || c.path == "" || c.path[0] != '/' {
			return nil, errState
		}
		s.cookies = append(s.cookies, c)
	}
	if r.bad || len(r.rest) != 0 {
		return nil, errState
	}
	return s, nil
}

// stateOf is decodeState where foreign bytes count as nothing.
func stateOf(h engine.HandlerState) *state {
	s, err := decodeState(h)
	if err != nil {
		return &state{}
	}
	return s
}

// change is what one reply says about a connection's state. It is applied to
// the state as it is at that time, which other replies may have changed since
// the request was sent.
type change struct {
	// state is the new connection state; nil keeps the old one.
	state *string
	// cookies are set, or removed.
	cookies []cookieChange
	at      time.Time
}

func (c *change) empty() bool { return c.state == nil && len(c.cookies) == 0 }

// apply returns the state after the change.
func (c *change) apply(h engine.HandlerState) engine.HandlerState {
	if c.empty() {
		return h
	}
	s := stateOf(h)
	if c.state != nil {
		s.has, s.text = true, *c.state
	}
	s.cookies = applyCookies(s.cookies, c.cookies, c.at)
	return s.encode()
}

// update returns c as a member of a reply to the engine: nil if nothing changes.
func (c *change) update() func(engine.HandlerState) engine.HandlerState {
	if c.empty() {
		return nil
	}
	return c.apply
}

// reader reads the encoded form of a state; after the first mistake it yields zeros.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.bad = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) text(most uint64) string {
	n := r.uvarint()
	if n > most || n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}
