// Package audience takes apart the URLs that tokens are addressed to.
//
// It does so itself, and not with net/url, because an audience is compared as it
// was written: nothing is normalised, resolved or escaped anew.
package audience

import "strings"

// Split takes a URL apart into its host and what follows it, which is empty or
// starts with a slash or a question mark. It reports false for a scheme other
// than http, https, ws and wss, which all mean the same here, and for a text
// without a host.
func Split(url string) (host, rest string, ok bool) {
	scheme, after, ok := strings.Cut(url, "://")
	if !ok {
		return "", "", false
	}
	switch {
	case Fold(scheme, "http"), Fold(scheme, "https"), Fold(scheme, "ws"), Fold(scheme, "wss"):
	default:
		return "", "", false
	}
	end := 0
	for end < len(after) && after[end] != '/' && after[end] != '?' {
		end++
	}
	return after[:end], after[end:], end > 0
}

// Host returns host without a default port. Since schemes are interchangeable,
// so are their default ports.
func Host(host string) string {
	name, ok := strings.CutSuffix(host, ":443")
	if !ok {
		name, ok = strings.CutSuffix(host, ":80")
	}
	// Not the end of an IPv6 address without a port.
	if ok && (!strings.Contains(name, ":") || strings.HasSuffix(name, "]")) {
		return name
	}
	return host
}

// SameHost reports whether two hosts, with or without ports, are the same.
func SameHost(a, b string) bool { return Fold(Host(a), Host(b)) }

// Path returns what precedes the query in rest.
func Path(rest string) string {
	path, _, _ := strings.Cut(rest, "?")
	return path
}

// Decode resolves the percent escapes of a path once, except that of a slash,
// which stays as it is: a slash of a name does not separate names. What is no
// escape stays too.
func Decode(path string) string {
	return decode(path, func(out []byte, c byte, raw string) []byte {
		if c == '/' {
			return append(out, raw...)
		}
		return append(out, c)
	})
}

// Normal returns a path with the escapes of its names in one form: the slash and the
// percent sign of a name are %2F and %25, and nothing else is escaped. Two paths have
// the same normal form if they have the same names.
func Normal(path string) string {
	return decode(path, func(out []byte, c byte, raw string) []byte {
		switch {
		case c == '/' && raw != "/":
			return append(out, "%2F"...)
		case c == '%':
			return append(out, "%25"...)
		}
		return append(out, c)
	})
}

// decode calls put with each character of a path, and with what it was written as: an
// escape, or the character itself.
func decode(path string, put func(out []byte, c byte, raw string) []byte) string {
	if !strings.Contains(path, "%") {
		return path
	}
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		if path[i] == '%' && i+2 < len(path) {
			if hi, lo := unhex(path[i+1]), unhex(path[i+2]); hi < 16 && lo < 16 {
				out = put(out, hi<<4|lo, path[i:i+3])
				i += 2
				continue
			}
		}
		out = put(out, path[i], path[i:i+1])
	}
	return string(out)
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 16
}

// Fold reports whether a and b are equal but for the case of ASCII letters.
func Fold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	if a == b {
		return true
	}
	for i := range len(a) {
		if x, y := a[i], b[i]; x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || 'z' < x|0x20) {
			return false
		}
	}
	return true
}
