package config

import "log/slog"

// Secret is text that must not be shown: however it is formatted, logged or
// marshalled, it comes out as a fixed word. Reveal is the one way to the text.
type Secret string

const hidden = "[secret]"

// Reveal returns the text itself. It must not reach a log, an error or a page.
func (s Secret) Reveal() string { return string(s) }

// String returns a fixed word, or nothing for the empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText is String, for JSON, YAML and text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue is String, for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
