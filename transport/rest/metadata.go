package rest

import (
	"net/http"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// metadataPrefix begins the headers that become a message's metadata.
const metadataPrefix = "X-Webpubsub-Metadata-"

// Bounds of a message's metadata, in bytes.
const (
	maxMetadataKey   = 256
	maxMetadataValue = 1024
	maxMetadata      = 8 << 10
)

// metadata reads the headers X-WebPubSub-Metadata-<key>. Keys are lower-cased.
// Of repeated headers the last one counts, and of a value only what follows its
// last comma: that is what a proxy that joins headers would leave, too.
func metadata(header http.Header) (engine.Metadata, error) {
	var m engine.Metadata
	total := 0
	for name, values := range header {
		if len(name) < len(metadataPrefix) || !strings.EqualFold(name[:len(metadataPrefix)], metadataPrefix) || len(values) == 0 {
			continue
		}
		key := strings.ToLower(name[len(metadataPrefix):])
		value := values[len(values)-1]
		value = strings.TrimSpace(value[strings.LastIndexByte(value, ',')+1:])
		switch {
		case !isToken(key):
			return nil, badMetadata("The metadata key %s is not a token of letters, digits and !#$%%&'*+-.^_`|~.", excerpt(key))
		case len(key) > maxMetadataKey:
			return nil, badMetadata("The metadata key %s has more than %d bytes.", excerpt(key), maxMetadataKey)
		case !isASCII(value):
			return nil, badMetadata("The value of the metadata key %s is not printable ASCII.", excerpt(key))
		case len(value) > maxMetadataValue:
			return nil, badMetadata("The value of the metadata key %s has %d bytes; at most %d are allowed.", excerpt(key), len(value), maxMetadataValue)
		}
		if total += len(key) + len(value); total > maxMetadata {
			return nil, badMetadata("The metadata's keys and values have more than %d bytes.", maxMetadata)
		}
		if m == nil {
			m = engine.Metadata{}
		}
		m[key] = value
	}
	return m, nil
}

func badMetadata(format string, args ...any) error {
	return engine.Errorf(engine.CodeInvalid, "rest.metadata", format, args...)
}

// isToken reports whether s is a token of HTTP (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 0x7f || c < ' ' && c != '\t' {
			return false
		}
	}
	return true
}
