// Package accesskey is the service's shared secret: two access keys that sign
// what application servers send and what clients show, and that can be exchanged
// one at a time while the service runs.
//
//   - [Key] is the text of one key, and keeps itself out of logs.
//   - [Ring] holds the primary and the secondary key. Either is accepted.
//   - [ConnectionString] is an endpoint and a key, as SDKs take it.
//   - [Servers] proves application servers, [Clients] proves clients. Each is a
//     scheme for authn's chains and works alone too.
//   - [Signed] proves application servers by signatures over whole requests.
//
// A key is used as the bytes of its text. It looks like base64, but is not
// decoded: that is how Azure Web PubSub and its SDKs sign. Signatures over requests,
// which are those of Azure Communication Services, are the exception.
package accesskey

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
)

// DevelopmentKey is the key of Microsoft's emulator, known to the whole world:
// connection strings written for the emulator work with a node that has it. It
// protects nothing, and belongs on loopback addresses alone.
const DevelopmentKey = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH"

// maxKey is how many bytes a key may have.
const maxKey = 1024

// Key is an access key. Printing it in any way shows that it is one and no more;
// see [Key.Reveal]. The zero Key is no key.
type Key struct{ text string }

// ParseKey checks a key's text: at most 1024 bytes of UTF-8 without semicolons,
// which end it in a connection string, control characters, or blanks around it.
// Any length is accepted, since SDKs do; see [Key.Weak].
func ParseKey(text string) (Key, error) {
	var wrong string
	switch {
	case text == "":
		wrong = "is empty"
	case len(text) > maxKey:
		wrong = fmt.Sprintf("has %d bytes", len(text))
	case !utf8.ValidString(text):
		wrong = "is not UTF-8"
	case strings.Contains(text, ";"):
		wrong = "holds a semicolon"
	case strings.ContainsFunc(text, unicode.IsControl):
		wrong = "holds a control character"
	case strings.TrimSpace(text) != text:
		wrong = "has blanks around it"
	default:
		return Key{text}, nil
	}
	return Key{}, engine.Errorf(engine.CodeInvalid, "accesskey.text",
		"The access key %s: expected 1 to %d bytes of text without semicolons, control characters and surrounding blanks.", wrong, maxKey)
}

// Generate makes a key of 256 random bits, in base64 as Azure issues them.
func Generate() Key {
	var bits [32]byte
	rand.Read(bits[:])
	return Key{base64.StdEncoding.EncodeToString(bits[:])}
}

// Reveal returns the key's text, for those who must write it down.
func (k Key) Reveal() string { return k.text }

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.text == "" }

// Weak reports whether the key is too short to keep a secret for long, under 32
// bytes, which some SDKs (Java's) refuse to sign with.
func (k Key) Weak() bool { return len(k.text) < 32 }

// String hides the key.
func (k Key) String() string {
	if k.IsZero() {
		return "no key"
	}
	return "(hidden key)"
}

// GoString hides the key from %#v.
func (k Key) GoString() string { return k.String() }

// LogValue hides the key from structured logs.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText hides the key from encoders.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
