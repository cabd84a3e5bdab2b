package enginetest

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// Lines is a toy protocol: each message is one line of text. Its zero value
// shares all bytes; with Numbered set each connection has a prefix of its own,
// "#seq", with "!" if it may have been delivered before, and, if it joined the group
// with options, "{options}". Loud ones shout, so that they share no bytes with others.
type Lines struct{ Numbered, Loud bool }

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
		dst = appendStream(dst, m.Stream)
		dst = append(append(dst, ' '), m.Payload.Data...)
	case engine.KindAck:
		dst = strconv.AppendUint(append(dst, "ack "...), uint64(m.AckID), 10)
		if m.Err != nil {
			dst = append(append(dst, ' '), m.Err.Code.String()...)
		}
	case engine.KindConnected:
		dst = append(append(dst, "connected "...), m.ConnID...)
		if m.ReconnectionToken != "" {
			dst = append(append(dst, ' '), m.ReconnectionToken...)
		}
	case engine.KindStreamAck:
		dst = appendStream(append(dst, "stream ack"...), m.Stream)
	case engine.KindStreamNack:
		dst = appendStream(append(dst, "stream nack"...), m.Stream)
	case engine.KindStreamClosed:
		dst = appendStream(append(dst, "stream closed"...), m.Stream)
	case engine.KindStateSnapshot:
		dst = appendStates(append(append(dst, "snapshot @"...), m.Group...), m.States)
	case engine.KindStateUpdate:
		dst = appendStates(append(append(dst, "update @"...), m.Group...), m.States)
	case engine.KindDisconnected:
		dst = append(append(dst, "disconnected "...), m.Text...)
	case engine.KindClose:
		dst = strconv.AppendUint(append(dst, "close "...), uint64(m.CloseCode), 10)
	default:
		return dst, false
	}
	if l.Loud {
		dst = append(dst, '!')
	}
	return append(dst, '\n'), true
}

func appendStream(dst []byte, p *engine.StreamPart) []byte {
	if p == nil {
		return dst
	}
	dst = fmt.Appendf(dst, " ~%s/%d", p.ID, p.Seq)
	if p.End {
		dst = append(dst, " end"...)
	}
	if p.Err != nil {
		dst = append(append(dst, ' '), p.Err.Name...)
	}
	return dst
}

func appendStates(dst []byte, items []engine.GroupState) []byte {
	for _, it := range items {
		dst = fmt.Appendf(dst, " %s:", it.ConnID)
		if it.State == nil {
			dst = append(dst, "gone"...)
		}
		for _, k := range engine.Metadata(it.State).Keys() {
			dst = fmt.Appendf(dst, "%s=%s,", k, it.State[k])
		}
	}
	return dst
}

// AppendPrefix writes the connection's own words.
func (l Lines) AppendPrefix(dst []byte, _ *engine.Message, own engine.Own, _ int) []byte {
	if own.Seq != 0 {
		again := ""
		if own.Again {
			again = "!"
		}
		dst = fmt.Appendf(dst, "#%d%s ", own.Seq, again)
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
