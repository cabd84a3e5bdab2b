package engine_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
)

func TestRoles(t *testing.T) {
	many := func(n int, format string) []string {
		roles := make([]string, n)
		for i := range roles {
			roles[i] = fmt.Sprintf(format, i)
		}
		return roles
	}
	for _, tt := range []struct {
		roles []string
		send  map[engine.GroupName]bool
	}{
		{nil, map[engine.GroupName]bool{"a": false}},
		{[]string{"webpubsub.sendToGroup"}, map[engine.GroupName]bool{"a": true, "a.b": true}},
		{[]string{"webpubsub.sendToGroup.a.*"}, map[engine.GroupName]bool{"a.*": true, "a.b": false}},
		{[]string{"webpubsub.sendToGroups.a.*"}, map[engine.GroupName]bool{"a.b": true, "a.b.c": false, "a": false}},
		{[]string{"webpubsub.sendToGroups.a.**"}, map[engine.GroupName]bool{"a.b": true, "a.b.c": true, "b": false}},
		{[]string{"webpubsub.sendToGroups.*"}, map[engine.GroupName]bool{"a": true, "a.b": false}},
		{[]string{"webpubsub.sendToGroups.plain"}, map[engine.GroupName]bool{"plain": true, "plainer": false}},
		{[]string{`webpubsub.sendToGroups.a\*`}, map[engine.GroupName]bool{"a*": true, "ab": false}},
		{[]string{`webpubsub.sendToGroups.a\`, `webpubsub.sendToGroups.b\x`}, map[engine.GroupName]bool{"a": false, `a\`: false, "bx": false}},
		{[]string{"webpubsub.sendToGroups.******"}, map[engine.GroupName]bool{"a": false}},
		{[]string{"WebPubSub.SendToGroup", "sendToGroup", "webpubsub.sendToGroupX", "webpubsub.sendToGroup.", "nonsense"}, map[engine.GroupName]bool{"a": false, "": false}},
		{[]string{"webpubsub.joinLeaveGroup"}, map[engine.GroupName]bool{"a": false}},
		{many(10, "webpubsub.sendToGroups.p%d.*"), map[engine.GroupName]bool{"p8.x": true, "p9.x": false}},
		{many(1001, "webpubsub.sendToGroup.g%d"), map[engine.GroupName]bool{"g999": true, "g1000": false}},
	} {
		h := start(t, nil).Hub("chat")
		c := connect(t, h, open{roles: tt.roles})
		for g, want := range tt.send {
			if got := c.Permitted(engine.SendToGroup, g); got != want {
				t.Errorf("%.3q: send to %q: %t, want %t", tt.roles, g, got, want)
			}
		}
	}
}

func TestParsePatternRefuses(t *testing.T) {
	for _, s := range []string{"", `\`, `a\b`, "a*b*c*d*e*f*", "***.***", strings.Repeat("x", 1025), "\xff"} {
		if _, err := engine.ParsePattern(s); engine.CodeOf(err) != engine.CodeInvalid || err == nil {
			t.Errorf("%q: got %v", s, err)
		}
	}
}

// Match agrees with a regular expression that says the same.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"*", "**", "a.*", "a.**.b", "?", `\*?`, "ü?*", "a", "***"} {
		f.Add(s, "a.b")
		f.Add(s, "üx.")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, err := engine.ParsePattern(pattern)
		if err != nil || !strings.Contains(name, "") || strings.ToValidUTF8(name, "") != name {
			return
		}
		var re strings.Builder
		re.WriteString(`(?s)\A`)
		for i := 0; i < len(pattern); i++ {
			switch c := pattern[i]; {
			case c == '\\':
				i++
				re.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
			case c == '?':
				re.WriteString(`[^.]`)
			case c == '*' && i+1 < len(pattern) && pattern[i+1] == '*':
				for i+1 < len(pattern) && pattern[i+1] == '*' {
					i++
				}
				re.WriteString(`.*`)
			case c == '*':
				re.WriteString(`[^.]*`)
			case c < 0x80:
				re.WriteString(regexp.QuoteMeta(string(c)))
			default:
				re.WriteByte(c)
			}
		}
		re.WriteString(`\z`)
		if want := regexp.MustCompile(re.String()).MatchString(name); p.Match(name) != want {
			t.Errorf("%q matches %q: %t, want %t", pattern, name, !want, want)
		}
	})
}

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want engine.HubName
	}{{"Chat", "chat"}, {"a1_`,.[]", "a1_`,.[]"}, {"1a", ""}, {"", ""}, {"a-b", ""}, {"a/b", ""}, {strings.Repeat("a", 128), engine.HubName(strings.Repeat("a", 128))}, {strings.Repeat("a", 129), ""}} {
		if got, err := engine.ParseHubName(tt.in); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("hub %q: %q, %v", tt.in, got, err)
		}
	}
	for in, ok := range map[string]bool{"a": true, " ": false, "": false, "\t\u2003": false, strings.Repeat("ü", 1024): true, strings.Repeat("a", 1025): false, "\xff": false, "a/b c": true} {
		if _, err := engine.ParseGroupName(in); (err == nil) != ok {
			t.Errorf("group %.10q: %v", in, err)
		}
	}
	for in, ok := range map[string]bool{"a": true, "A.b-c_9": true, "9a": false, "": false, "a b": false, strings.Repeat("a", 128): true, strings.Repeat("a", 129): false} {
		if _, err := engine.ParseEventName(in); (err == nil) != ok {
			t.Errorf("event %.10q: %v", in, err)
		}
	}
}
