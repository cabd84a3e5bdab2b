package rest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// maxSegments is how many segments the longest path of an operation has.
const maxSegments = 7

// router finds operations by their paths and methods.
type router[O any] struct {
	api    string // what they are, in words
	routes []*route[O]
}

// route is one path and the operations on it.
type route[O any] struct {
	segments []string // literal text; empty for a parameter
	params   []string // the parameters' names, in order
	ops      []*O
	methods  []string // those of ops
}

// routes are made from the table of operations.
var routes = newRouter("data plane", operations, func(op *operation) (method, path string) { return op.method, op.path })

// newRouter returns the router of a table; where tells the method and path of one of its rows.
func newRouter[O any](api string, table []O, where func(*O) (method, path string)) *router[O] {
	all := &router[O]{api: api}
	byPath := map[string]*route[O]{}
	for i := range table {
		method, path := where(&table[i])
		rt := byPath[path]
		if rt == nil {
			rt = &route[O]{}
			for _, s := range strings.Split(path[1:], "/") {
				if name, ok := strings.CutPrefix(s, "{"); ok {
					rt.params = append(rt.params, strings.TrimSuffix(name, "}"))
					s = ""
				}
				rt.segments = append(rt.segments, s)
			}
			byPath[path] = rt
			all.routes = append(all.routes, rt)
		}
		rt.ops, rt.methods = append(rt.ops, &table[i]), append(rt.methods, method)
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
func (r *router[O]) match(path string) (*route[O], []string, error) {
	var segments [maxSegments]string
	n := 0
	for rest, more := path[1:], true; more; n++ {
		if n == maxSegments {
			return nil, nil, r.unknown(path)
		}
		segments[n], rest, more = strings.Cut(rest, "/")
	}
	for _, rt := range r.routes {
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
	return nil, nil, r.unknown(path)
}

func (rt *route[O]) matches(segments []string) bool {
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
func (rt *route[O]) operation(method string) (*O, error) {
	if i := slices.Index(rt.methods, method); i >= 0 {
		return rt.ops[i], nil
	}
	allow := strings.Join(rt.methods, ", ")
	return nil, &refusal{
		status: http.StatusMethodNotAllowed, allow: allow,
		err: engine.Errorf(engine.CodeInvalid, "rest.method",
			"This path does not know the method %s; it knows %s.", excerpt(method), allow),
	}
}

func (r *router[O]) unknown(path string) error {
	return &refusal{
		status: http.StatusNotFound,
		err: engine.Errorf(engine.CodeNotFound, "rest.path",
			"No operation of the %s has the path %s.", r.api, excerpt(path)),
	}
}

// decodeSegment percent-decodes one segment of a path, once: %2F is a slash of the
// name, and %252F is the name %2F.
func decodeSegment(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	return percentDecode(s, "path")
}

// percentDecode decodes the escapes in s.
func percentDecode(s, where string) (string, error) {
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
		b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
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
