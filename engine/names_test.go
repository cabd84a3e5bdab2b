package engine_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
)

// A user id reaches event handlers in a header, and logs, so it holds nothing that ends a
// line or that a terminal obeys.
func TestUserIDsWithoutControlCharacters(t *testing.T) {
	for s, ok := range map[string]bool{
		"ann": true, "8:acs:a_b": true, "a b/c": true, "üser \U0001F600": true, "a\u00a0b": true,
		"a\rb": false, "a\nb": false, "a\r\nX-Evil: 1": false, "ann\n": false, "ann\x00": false, "\x1b[2J": false, "a\tb": false, "a\x7f": false, "a\u009b2J": false, "a\u0085b": false,
		"": false, " ": false, "\xff": false, strings.Repeat("x", engine.MaxUserID): true, strings.Repeat("x", engine.MaxUserID+1): false,
	} {
		_, err := engine.ParseUserID(s)
		var e *engine.Error
		if ok != (err == nil) || err != nil && (!errors.As(err, &e) || e.Rule != "name.userId" || !strings.Contains(e.Message, "expected")) {
			t.Errorf("%.40q: %v", s, err)
		}
	}
}
