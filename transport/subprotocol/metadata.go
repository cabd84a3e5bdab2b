package subprotocol

import (
	"fmt"

	"github.com/fanfare/fanfare/engine"
)

// Bounds of a message's metadata, in bytes.
const (
	maxMetadataKey   = 256
	maxMetadataValue = 1024
	maxMetadata      = 8192 // all keys and values together
)

// metadata collects a message's key-value pairs and holds them to Azure's rules.
// Pairs travel on to event handlers as HTTP headers, hence the token keys (RFC
// 7230 section 3.2.6) and the ASCII values. Keys that differ in case are two.
type metadata struct {
	pairs engine.Metadata
	total int
}

// add adds a pair, or says which rule it breaks.
func (m *metadata) add(key, value []byte) (fault string) {
	switch {
	case len(key) == 0:
		return "has an empty key"
	case len(key) > maxMetadataKey:
		return fmt.Sprintf("has a key of %d bytes; at most %d pass", len(key), maxMetadataKey)
	case !isToken(key):
		return fmt.Sprintf("has the key %s, which is not an RFC 7230 token", excerpt(key))
	case len(value) > maxMetadataValue:
		return fmt.Sprintf("has a value of %d bytes under %s; at most %d pass", len(value), excerpt(key), maxMetadataValue)
	case !isASCII(value):
		return fmt.Sprintf("has a value under %s that is not ASCII", excerpt(key))
	}
	if m.total += len(key) + len(value); m.total > maxMetadata {
		return fmt.Sprintf("has more than %d bytes of keys and values", maxMetadata)
	}
	if _, twice := m.pairs[string(key)]; twice {
		return fmt.Sprintf("has the key %s twice", excerpt(key))
	}
	if m.pairs == nil {
		m.pairs = make(engine.Metadata)
	}
	m.pairs[string(key)] = string(value)
	return ""
}

func isToken(s []byte) bool {
	for _, c := range s {
		if !tokenBytes[c] {
			return false
		}
	}
	return len(s) > 0
}

func isASCII(s []byte) bool {
	for _, c := range s {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

var tokenBytes = func() (t [256]bool) {
	const token = "!#$%&'*+-.^_`|~0123456789" +
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, c := range []byte(token) {
		t[c] = true
	}
	return t
}()
