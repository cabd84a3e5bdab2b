package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// shape is what a node of a YAML text is.
type shape uint8

const (
	null shape = iota
	scalar
	list
	mapping
)

func (s shape) String() string { return [...]string{"nothing", "a value", "a list", "a map"}[s] }

// node is a YAML text reduced to what the decoder needs: shapes, texts and the
// places they were written in. Aliases and merge keys are resolved.
type node struct {
	shape   shape
	text    string // of a scalar, as it was written
	at      place
	items   []*node // of a list
	entries []entry // of a mapping, in the order of the text
}

type entry struct {
	key   string
	at    place
	value *node
}

// Bounds of a text, so that one whose aliases multiply cannot eat the machine.
const (
	maxNodes = 100_000
	maxDepth = 64
)

// parse reads one YAML document. at says whose text it is; its line and column
// are filled in where the text is a file's.
func parse(text []byte, at place) (*node, *Problem) {
	problem := func(p place, format string, args ...any) *Problem {
		return &Problem{Where: p.String(), Text: fmt.Sprintf(format, args...), order: p}
	}
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		// The library's own Error() quotes the lines around the mistake, and
		// with them whatever secret is there.
		p, message := at, "cannot be read as YAML"
		if e, ok := errors.AsType[yaml.Error](err); ok {
			if t := e.GetToken(); t != nil && t.Position != nil && at.layer == fromFile {
				p.line, p.column = t.Position.Line, t.Position.Column
			}
			message = "not valid YAML: " + unquoted(e.GetMessage())
		}
		return nil, problem(p, "%s", message)
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			return nil, problem(at, "holds more than one YAML document; expected one")
		}
		body = doc.Body
	}
	r := &reader{at: at, anchors: map[string]ast.Node{}}
	n := r.node(body, 0)
	if r.refused != "" {
		return nil, problem(r.refusedAt, "%s", r.refused)
	}
	return n, nil
}

// unquoted cuts what a message of the library quotes of the text.
func unquoted(message string) string {
	if i := strings.IndexAny(message, "\"`"); i >= 0 {
		return strings.TrimRight(message[:i], " :")
	}
	return message
}

// reader turns a syntax tree into nodes.
type reader struct {
	at        place
	anchors   map[string]ast.Node
	made      int
	refused   string // why the text cannot be taken at all
	refusedAt place
}

func (r *reader) refuse(at place, format string, args ...any) {
	if r.refused == "" {
		r.refused, r.refusedAt = fmt.Sprintf(format, args...), at
	}
}

func (r *reader) place(n ast.Node) place {
	p := r.at
	if n == nil || p.layer != fromFile {
		return p
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		p.line, p.column = t.Position.Line, t.Position.Column
	}
	return p
}

func (r *reader) node(n ast.Node, depth int) *node {
	out := &node{at: r.place(n)}
	if r.made++; r.made > maxNodes || depth > maxDepth {
		r.refuse(out.at, "too deep or too long: expected at most %d levels and %d values", maxDepth, maxNodes)
	}
	if r.refused != "" || n == nil {
		return out
	}
	switch n := n.(type) {
	case *ast.NullNode, *ast.CommentGroupNode, *ast.CommentNode:
	case *ast.StringNode:
		out.shape, out.text = scalar, n.Value
	case *ast.LiteralNode:
		out.shape, out.text = scalar, n.Value.Value
	case *ast.AnchorNode:
		r.anchors[n.Name.GetToken().Value] = n.Value
		return r.node(n.Value, depth+1)
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		target, ok := r.anchors[name]
		if !ok {
			// Not quoted: it may be a secret that begins with a star.
			r.refuse(out.at, "an alias that has no anchor before it; a text that begins with * needs quotes")
			return out
		}
		resolved := *r.node(target, depth+1)
		resolved.at = out.at
		return &resolved
	case *ast.TagNode:
		return r.node(n.Value, depth+1)
	case *ast.SequenceNode:
		out.shape = list
		for _, v := range n.Values {
			out.items = append(out.items, r.node(v, depth+1))
		}
	case *ast.MappingNode:
		out.shape = mapping
		r.entries(out, n.Values, depth)
	case *ast.MappingValueNode:
		out.shape = mapping
		r.entries(out, []*ast.MappingValueNode{n}, depth)
	default: // numbers, booleans
		out.shape, out.text = scalar, n.GetToken().Value
	}
	return out
}

func (r *reader) entries(out *node, values []*ast.MappingValueNode, depth int) {
	if len(values) > 0 {
		out.at = r.place(values[0].Key) // the library says where its colon is
	}
	own := make(map[string]bool, len(values))
	var merged []*node
	for _, v := range values {
		at := r.place(v.Key)
		value := r.node(v.Value, depth+1)
		if v.Key.IsMergeKey() {
			if value.shape == list {
				merged = append(merged, value.items...)
			} else {
				merged = append(merged, value)
			}
			continue
		}
		key := keyText(v.Key)
		own[key] = true
		out.entries = append(out.entries, entry{key: key, at: at, value: value})
	}
	for _, m := range merged {
		if m.shape != mapping {
			r.refuse(m.at, "<< expects a map, or a list of maps")
			return
		}
		for _, e := range m.entries {
			if !own[e.key] {
				own[e.key] = true
				out.entries = append(out.entries, e)
			}
		}
	}
}

func keyText(k ast.MapKeyNode) string {
	switch k := k.(type) {
	case *ast.StringNode:
		return k.Value
	case *ast.MappingKeyNode:
		if s, ok := k.Value.(*ast.StringNode); ok {
			return s.Value
		}
		if k.Value == nil {
			return ""
		}
		return k.Value.GetToken().Value
	}
	return k.GetToken().Value
}
