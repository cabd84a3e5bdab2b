package audience_test

import (
	"testing"

	"github.com/fanfare/fanfare/authn/internal/audience"
)

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		url, host, rest string
		ok              bool
	}{
		{"http://a/b?c", "a", "/b?c", true},
		{"WSS://a:1", "a:1", "", true},
		{"ws://[::1]:8/x", "[::1]:8", "/x", true},
		{"https://a?x/y", "a", "?x/y", true},
		{"ftp://a/b", "", "", false},
		{"a/b", "", "", false},
		{"http:///b", "", "/b", false},
		{"", "", "", false},
	} {
		host, rest, ok := audience.Split(tt.url)
		if host != tt.host || rest != tt.rest || ok != tt.ok {
			t.Errorf("Split(%q) = %q, %q, %v", tt.url, host, rest, ok)
		}
	}
}

func TestSameHost(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"A.example", "a.EXAMPLE:443", true},
		{"a:80", "a:443", true},
		{"[::1]:80", "[::1]", true},
		{"a:8080", "a", false},
		{"a:8443", "a", false},
		{"::80", "::", false},
		{"a", "b", false},
		{"a@b", "b", false},
	} {
		if got := audience.SameHost(tt.a, tt.b); got != tt.want {
			t.Errorf("SameHost(%q, %q) = %v", tt.a, tt.b, got)
		}
	}
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"/a+b%20c%5b%5D", "/a+b c[]"},
		{"a%2Fb%2f", "a%2Fb%2f"},
		{"a%252Fb", "a%2Fb"},
		{"100%", "100%"},
		{"%4", "%4"},
		{"%zz%C3%BC", "%zzü"},
	} {
		if got := audience.Decode(tt.path); got != tt.want {
			t.Errorf("Decode(%q) = %q, want %q", tt.path, got, tt.want)
		}
	}
}

func TestNormal(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"/a+b%20c%5b%5D", "/a+b c[]"},
		{"/a/b", "/a/b"},
		{"/x%20/a%2Fb%2f", "/x /a%2Fb%2F"},
		{"a%252Fb", "a%252Fb"},
		{"a%25252Fb", "a%25252Fb"},
		{"a%25%32Fb", "a%252Fb"},
		{"100%", "100%25"},
		{"%zz%C3%BC", "%25zzü"},
	} {
		if got := audience.Normal(tt.path); got != tt.want {
			t.Errorf("Normal(%q) = %q, want %q", tt.path, got, tt.want)
		}
	}
}

func TestFold(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"aZ", "Az", true}, {"[", "{", false}, {"@", "`", false}, {"\u212A", "k", false}, {"a", "ab", false}, {"É", "é", false},
	} {
		if got := audience.Fold(tt.a, tt.b); got != tt.want {
			t.Errorf("Fold(%q, %q) = %v", tt.a, tt.b, got)
		}
	}
}
