package rest

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
)

// object is a JSON object, by the names of its members. A member that is null counts as
// missing. Names are compared as they are, and unknown ones are nobody's business.
type object map[string]json.RawMessage

// object reads the body as a JSON object. One of no bytes is an object without members,
// whatever its Content-Type; a body without a Content-Type is taken for JSON. A member
// that comes twice is refused: which of the two was meant is anyone's guess.
func (b *bodyReader) object() (object, error) {
	if err := checkEncoding(b.r.Header); err != nil {
		return nil, err
	}
	p, err := b.all()
	if err != nil || len(p) == 0 {
		return nil, err
	}
	if value := b.r.Header.Get("Content-Type"); value != "" {
		t, charset, err := contentType(b.r.Header)
		if err != nil {
			return nil, err
		}
		if t != engine.JSON {
			return nil, unsupportedType(value, "application/json")
		}
		if p, err = b.utf8(p, charset); err != nil {
			return nil, err
		}
	} else if !utf8.Valid(p) {
		return nil, notUTF8()
	}
	if !json.Valid(p) {
		return nil, notJSON()
	}
	d := json.NewDecoder(bytes.NewReader(p))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil, engine.Errorf(engine.CodeInvalid, "rest.json", "The body is %s, expected a JSON object.", kindOf(bytes.TrimSpace(p)))
	}
	o := object{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, notJSON()
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, notJSON()
		}
		member, _ := name.(string) // where values are read, names are strings
		if _, twice := o[member]; twice {
			return nil, refusedMember(member, "comes twice, expected at most once")
		}
		o[member] = value
	}
	return o, nil
}

// kindOf says what a JSON value is.
func kindOf(value []byte) string {
	switch value[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	if len(value) > 32 {
		return "a number"
	}
	return string(value)
}

// refusedMember makes the refusal of a member, named after it if its name can be a rule's.
func refusedMember(name, why string) error {
	if !isToken(name) || len(name) > 64 {
		return engine.Errorf(engine.CodeInvalid, "rest.json", "The body's member %s %s.", excerpt(name), why)
	}
	return invalid(name, "The body's %s %s.", name, why)
}

// value returns a member's value, and nil if it is missing.
func (o object) value(name string) []byte {
	v := bytes.TrimSpace(o[name])
	if string(v) == "null" {
		return nil
	}
	return v
}

// text returns the string that a member is, and whether it is there.
func (o object) text(name string) (s string, ok bool, err error) {
	v := o.value(name)
	if len(v) == 0 {
		return "", false, nil
	}
	if s, err = toText(name, v); err != nil {
		return "", false, err
	}
	return s, true, nil
}

// toText returns the string that v is, which where names.
func toText(where string, v []byte) (string, error) {
	var s string
	if v[0] != '"' || json.Unmarshal(v, &s) != nil {
		return "", memberKind(where, v, "a string")
	}
	// Half a surrogate pair has become this, and so would any other half.
	if strings.ContainsRune(s, utf8.RuneError) {
		name, _, _ := strings.Cut(where, "[")
		return "", invalid(name, "The body's %s holds U+FFFD, the mark of text that was damaged.", where)
	}
	return s, nil
}

func memberKind(where string, v []byte, want string) error {
	name, _, _ := strings.Cut(where, "[")
	return invalid(name, "The body's %s is %s, expected %s.", where, kindOf(v), want)
}

// list returns the strings of the array that a member is; none if it is missing.
func (o object) list(name string) ([]string, error) {
	v := o.value(name)
	if len(v) == 0 {
		return nil, nil
	}
	var items []json.RawMessage
	if v[0] != '[' || json.Unmarshal(v, &items) != nil {
		return nil, memberKind(name, v, "an array of strings")
	}
	list := make([]string, len(items))
	for i, item := range items {
		var err error
		if list[i], err = toText(name+"["+strconv.Itoa(i)+"]", bytes.TrimSpace(item)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// integer returns the whole number from from to to that a member is, and def if it is missing.
func (o object) integer(name string, from, to, def int) (int, error) {
	v := o.value(name)
	if len(v) == 0 {
		return def, nil
	}
	n, err := strconv.Atoi(string(v)) // stricter than JSON: no fraction, no exponent
	if err != nil || n < from || n > to {
		return 0, invalid(name, "The body's %s is %s, expected a whole number from %d to %d.", name, kindOf(v), from, to)
	}
	return n, nil
}
