package rest

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// maxSegments is how many segments the longest path of an operation has.
const maxSegments = 7

// route is one path and the operations on it.
type route struct {
	segments []string // literal text; empty for a parameter
	params   []string // the parameters' names, in order
	ops      []*operation
	allow    string // the methods, for the Allow header
}

// routes are made from the table of operations.
var routes = buildRoutes(operations)

func buildRoutes(ops []operation) []*route {
	var all []*route
	byPath := map[string]*route{}
	for i := range ops {
		op := &ops[i]
		rt := byPath[op.path]
		if rt == nil {
			rt = &route{}
			for _, s := range strings.Split(op.path[1:], "/") {
				if name, ok := strings.CutPrefix(s, "{"); ok {
					rt.params = append(rt.params, strings.TrimSuffix(name, "}"))
					s = ""
				}
				rt.segments = append(rt.segments, s)
			}
			byPath[op.path] = rt
			all = append(all, rt)
		} else {
			rt.allow += ", "
		}
		rt.ops = append(rt.ops, op)
		rt.allow += op.method
	}
	return all
}

// sentPath returns the path of u as it was sent. It is u.EscapedPath, except
// that a path with a character that ought to have been escaped (a backtick in
// a hub's name, say) keeps its own escapes, where EscapedPath would make a
// separator of %2F.
func sentPath(u *url.URL) string {
	if u.RawPath != "" {
		if p, err := url.PathUnescape(u.RawPath); err == nil && p == u.Path {
			return u.RawPath
		}
	}
	return u.EscapedPath()
}

// match finds the route of a path that begins with a slash, and the parts of
// the path that stand for its parameters, still escaped.
func match(path string) (*route, []string, error) {
	var segments [maxSegments]string
	n := 0
	for rest, more := path[1:], true; more; n++ {
		if n == maxSegments {
			return nil, nil, notFoundPath(path)
		}
		segments[n], rest, more = strings.Cut(rest, "/")
	}
	for _, rt := range routes {
		if len(rt.segments) == n && rt.matches(segments[:n]) {
			values := make([]string, 0, len(rt.params))
			for i, s := range rt.segments {
				if s == "" {
					values = append(values, segments[i])
				}
			}
			return rt, values, nil
		}
	}
	return nil, nil, notFoundPath(path)
}

func (rt *route) matches(segments []string) bool {
	for i, want := range rt.segments {
		if want == "" || segments[i] == want {
			continue
		}
		if got, err := decodeSegment(segments[i]); err != nil || got != want {
			return false
		}
	}
	return true
}

// operation returns what method does on this path.
func (rt *route) operation(method string) (*operation, error) {
	for _, op := range rt.ops {
		if op.method == method {
			return op, nil
		}
	}
	return nil, &refusal{
		status: http.StatusMethodNotAllowed, allow: rt.allow,
		err: engine.Errorf(engine.CodeInvalid, "rest.method",
			"This path does not know the method %s; it knows %s.", excerpt(method), rt.allow),
	}
}

func notFoundPath(path string) error {
	return &refusal{
		status: http.StatusNotFound,
		err: engine.Errorf(engine.CodeNotFound, "rest.path",
			"No operation of the data plane has the path %s.", excerpt(path)),
	}
}

// decodeSegment percent-decodes one segment of a path once, except for %2F,
// which stays the three characters it is: a name may hold what looks like a
// separator, and then it holds it escaped.
func decodeSegment(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	return percentDecode(s, "path", func(b []byte, c byte, raw string) []byte {
		if c == '/' {
			return append(b, raw...)
		}
		return append(b, c)
	})
}

// percentDecode decodes the escapes in s. put appends a decoded byte, or the
// escape it was written as.
func percentDecode(s, where string, put func(b []byte, c byte, raw string) []byte) (string, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
			return "", engine.Errorf(engine.CodeInvalid, "rest."+where,
				"The %s holds %s, where %% must be followed by two hexadecimal digits.", where, excerpt(s[i:min(i+3, len(s))]))
		}
		b = put(b, unhex(s[i+1])<<4|unhex(s[i+2]), s[i:i+3])
		i += 2
	}
	return string(b), nil
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
