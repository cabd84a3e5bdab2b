package enginetest

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// Lines is a toy protocol: each message is one line of text. Its zero value
// shares all bytes; with Numbered set each connection has a prefix of its own,
// "#seq" and, if it joined the group with options, "{options}".
type Lines struct{ Numbered bool }

var _ engine.Encoding = Lines{}

// AppendBody writes the message's words. Pings are left out.
func (l Lines) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	switch m.Kind {
	case engine.KindData:
		dst = append(dst, m.Payload.Type.String()...)
		if m.Group != "" {
			dst = append(append(dst, " @"...), m.Group...)
		}
		if m.From != "" {
			dst = append(append(dst, " <"...), m.From...)
		}
		for _, k := range m.Metadata.Keys() {
			dst = fmt.Appendf(dst, " %s=%s", k, m.Metadata[k])
		}
		if m.Attributes != nil {
			dst = fmt.Appendf(dst, " [%v]", m.Attributes)
		}
		dst = append(append(dst, ' '), m.Payload.Data...)
	case engine.KindAck:
		dst = strconv.AppendUint(append(dst, "ack "...), uint64(m.AckID), 10)
		if m.Err != nil {
			dst = append(append(dst, ' '), m.Err.Code.String()...)
		}
	case engine.KindConnected:
		dst = append(append(dst, "connected "...), m.ConnID...)
	case engine.KindDisconnected:
		dst = append(append(dst, "disconnected "...), m.Text...)
	case engine.KindClose:
		dst = strconv.AppendUint(append(dst, "close "...), uint64(m.CloseCode), 10)
	default:
		return dst, false
	}
	return append(dst, '\n'), true
}

// AppendPrefix writes the connection's own words.
func (l Lines) AppendPrefix(dst []byte, _ *engine.Message, own engine.Own, _ int) []byte {
	if own.Seq != 0 {
		dst = fmt.Appendf(dst, "#%d ", own.Seq)
	}
	if own.Membership != nil {
		dst = fmt.Appendf(dst, "{%v} ", own.Membership)
	}
	return dst
}

// Own reports whether connections have prefixes of their own.
func (l Lines) Own() bool { return l.Numbered }

// SplitLines returns the lines in b, which ends with a whole one, and what
// follows the last of them.
func SplitLines(b []byte) (lines []string, rest string) {
	parts := strings.Split(string(b), "\n")
	return parts[:len(parts)-1], parts[len(parts)-1]
}
