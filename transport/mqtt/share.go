package mqtt

import "github.com/fanfare/fanfare/engine"

// packetsPerTurn is how many packets a client gets carried out before others have
// their turn: one message may hold half a million of them.
const packetsPerTurn = 64

// leave keeps b, which begins with a whole packet, for a later turn: for the wire's
// next one, or for when the engine resumes. s.in is held.
func (s *session) leave(b []byte, nextTurn bool) {
	s.split.leave(b)
	s.yielded, s.paused = nextTurn, !nextTurn
	s.stopped.Store(true)
	s.track(s.conn.Kept)
}

// track tells the engine how much split holds, if it holds anything: begin begins
// the account. s.in is held.
func (s *session) track(begin func(engine.WireID) *engine.Unfinished) {
	if len(s.split.part) == 0 {
		return
	}
	if s.partial == nil {
		s.partial = begin(s.id)
	}
	s.partial.Hold(cap(s.split.part))
}

// complete ends the account: the packet that split's bytes begin with is carried out
// now, or begins to be waited for. s.in is held.
func (s *session) complete() {
	if s.partial != nil {
		s.partial.Done()
		s.partial = nil
	}
}

// Control implements [websocket.Session].
func (s *session) Control(n int) (more bool) {
	s.in.Lock()
	defer s.in.Unlock()
	return s.countControl(n)
}

// countControl is Control with s.in held.
func (s *session) countControl(n int) (more bool) {
	more, reason := s.control.Count(s.conn, s.wire, n)
	if reason != "" {
		s.conn.EndOn(s.id, engine.EndControlRate, engine.ClosePolicy, "", reason)
	}
	return more
}

// Unfinished implements [websocket.Session].
func (s *session) Unfinished() *engine.Unfinished { return s.conn.Unfinished(s.id) }

// data counts a packet that carries none. s.in is held.
func (s *session) data(has bool) (more bool) {
	if has || s.countControl(1) {
		return true
	}
	s.yielded = true // the wire is resumed in time
	return false
}
