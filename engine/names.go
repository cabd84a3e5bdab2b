package engine

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// HubName names a hub: the isolation scope that nothing crosses. It is always
// in the lower-case form that [ParseHubName] makes, since hub names compare
// without regard to case.
type HubName string

// GroupName names a group. Group names are case-sensitive and may hold any
// characters; see [ParseGroupName].
type GroupName string

// UserID is a name shared by connections. The empty UserID means that the
// connection has no user (an anonymous client).
type UserID string

// ConnID identifies a logical connection within its hub. It is opaque.
type ConnID string

// EventName names a user event.
type EventName string

// NodeID identifies one running engine among those that share a [Backplane].
type NodeID string

// WireID numbers the wires of one logical connection: 1 for the first, one more
// for each recovery.
type WireID uint32

// FirstWire is the wire that a connection opens with.
const FirstWire WireID = 1

// AckID is the number a client gives to a request that it wants acknowledged.
type AckID uint64

// SequenceID is the number the engine gives to a delivery on a numbered
// connection. The first one is 1.
type SequenceID uint64

// Bounds of names, those of Azure Web PubSub.
const (
	MaxHubName   = 128
	MaxGroupName = 1024
	MaxEventName = 128
	MaxConnID    = 128
	MaxUserID    = 1024
)

// ParseHubName checks s against the hub rule, one letter followed by at most
// 127 letters, digits or _ ` , . [ ], and returns it in lower case.
func ParseHubName(s string) (HubName, error) {
	if s == "" || len(s) > MaxHubName || !isLetter(s[0]) {
		return "", invalidName("hub", s, "a letter followed by at most 127 letters, digits or _ ` , . [ ]")
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !isLetter(c) && !isDigit(c) && strings.IndexByte("_`,.[]", c) < 0 {
			return "", invalidName("hub", s, "a letter followed by at most 127 letters, digits or _ ` , . [ ]")
		}
	}
	return HubName(strings.ToLower(s)), nil
}

// ParseGroupName checks s against the group rule: 1 to 1024 characters of
// valid UTF-8 that are not all white space.
func ParseGroupName(s string) (GroupName, error) {
	if err := checkText("group", s, MaxGroupName); err != nil {
		return "", err
	}
	return GroupName(s), nil
}

// ParseUserID checks s against the user rule: 1 to 1024 characters of valid
// UTF-8 that are not all white space, without control characters (Unicode's category
// Cc, which holds line ends and escapes): event handlers get user ids in a header, and
// logs show them. Use the zero UserID for "no user".
func ParseUserID(s string) (UserID, error) {
	if err := checkText("userId", s, MaxUserID); err != nil {
		return "", err
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "", invalidName("userId", s, "no control character")
	}
	return UserID(s), nil
}

// ParseConnID checks that s can be looked up as a connection id: it is not
// blank. An id longer than [MaxConnID] is not an error here; no connection has it.
func ParseConnID(s string) (ConnID, error) {
	if strings.TrimSpace(s) == "" {
		return "", invalidName("connectionId", s, "at least one character that is not white space")
	}
	return ConnID(s), nil
}

// ParseEventName checks s against the rule for events that clients raise: a
// letter followed by at most 127 letters, digits or _ . -.
func ParseEventName(s string) (EventName, error) {
	const want = "a letter followed by at most 127 letters, digits or _ . -"
	if s == "" || len(s) > MaxEventName || !isLetter(s[0]) {
		return "", invalidName("event", s, want)
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !isLetter(c) && !isDigit(c) && c != '_' && c != '.' && c != '-' {
			return "", invalidName("event", s, want)
		}
	}
	return EventName(s), nil
}

func checkText(what, s string, most int) error {
	if len(s) > most && utf8.RuneCountInString(s) > most || strings.TrimSpace(s) == "" || !utf8.ValidString(s) {
		return invalidName(what, s, fmt.Sprintf("1 to %d characters of UTF-8, not only white space", most))
	}
	return nil
}

func invalidName(what, got, want string) error {
	return &Error{
		Code: CodeInvalid, Rule: "name." + what, Target: what,
		Message: fmt.Sprintf("%s %s is not valid: expected %s.", what, excerpt(got), want),
	}
}

// excerpt quotes at most 64 bytes of s, so that an error about a long input stays short.
func excerpt(s string) string {
	if len(s) > 64 {
		return fmt.Sprintf("%q... (%d bytes)", s[:64], len(s))
	}
	return fmt.Sprintf("%q", s)
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
