package subprotocol

import (
	"strconv"

	"github.com/fanfare/fanfare/engine"
)

// readSetState reads a connection's state in a group. No state clears it; one
// without members is a state. Of a repeated key the last one counts.
func (m *jsonMessage) readSetState(r *engine.Request) error {
	if err := m.readGroup(r); err != nil {
		return err
	}
	if !m.given(m.state) {
		return nil
	}
	if err := m.object("state", m.state); err != nil {
		return err
	}
	r.State = make(map[string]string)
	total := 0
	for name, value := range m.members(m.state) {
		key, lone := m.unquoted(name)
		if lone {
			// Replaced, two keys would become one.
			return malformed("state: half a surrogate pair in a key")
		}
		text, _, err := m.str("state", value)
		if err != nil {
			return err
		}
		if total += len(key) + len(text); total > maxState {
			return malformed("state: more than %d bytes of keys and values", maxState)
		}
		r.State[string(key)] = string(text)
	}
	return nil
}

func appendStateMembers(dst []byte, m *engine.Message) []byte {
	if m.Kind == engine.KindStateSnapshot {
		dst = append(dst, `"type":"groupStateSnapshot","group":`...)
	} else {
		dst = append(dst, `"type":"groupStateUpdate","group":`...)
	}
	dst = appendString(dst, m.Group)
	dst = append(dst, `,"items":[`...)
	for i := range m.States {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendStateItem(dst, &m.States[i])
	}
	return append(dst, ']')
}

func appendStateItem(dst []byte, s *engine.GroupState) []byte {
	dst = appendString(append(dst, `{"connectionId":`...), s.ConnID)
	if s.UserID != "" {
		dst = appendString(append(dst, `,"userId":`...), s.UserID)
	}
	if s.State != nil { // absent once it is cleared
		dst = appendPairs(append(dst, `,"state":`...), s.State)
	}
	dst = strconv.AppendInt(append(dst, `,"updatedAt":`...), s.UpdatedAt.UnixMilli(), 10)
	return append(dst, '}')
}
