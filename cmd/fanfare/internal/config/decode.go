package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// decoder fills a Config from nodes, remembers where each value came from, and
// collects what is wrong instead of stopping at it.
type decoder struct {
	problems Problems
	warnings Problems
	places   map[string]place // by path

	read   func(path string) ([]byte, error)
	source []byte // the text of the file
	empty  bool   // the file holds no key
}

func (d *decoder) problem(at place, path, format string, args ...any) {
	d.problems = append(d.problems, Problem{Where: at.String(), Path: path, Text: fmt.Sprintf(format, args...), order: at})
}

// unread is a problem with something that no value could be had from.
func (d *decoder) unread(at place, path, format string, args ...any) {
	d.problem(at, path, format, args...)
	d.problems[len(d.problems)-1].unread = true
}

func (d *decoder) warn(at place, path, format string, args ...any) {
	d.warnings = append(d.warnings, Problem{Where: at.String(), Path: path, Text: fmt.Sprintf(format, args...), order: at})
}

// placeOf returns where the value at path was written, or the nearest thing
// around it that was.
func (d *decoder) placeOf(path string) place {
	for p := path; p != ""; {
		if at, ok := d.places[p]; ok {
			return at
		}
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return place{layer: fromDefault}
}

// value decodes n into v. A null leaves the default.
func (d *decoder) value(n *node, v reflect.Value, path keyPath) {
	if n.shape == null {
		return
	}
	if path.text != "" {
		d.places[path.text] = n.at
	}
	switch {
	case isScalar(v.Type()):
		if n.shape != scalar {
			d.unread(n.at, path.text, "found %s; expected %s", n.shape, wish(v.Type()))
			return
		}
		d.scalar(n.text, n.at, v, path)
	case v.Kind() == reflect.Struct:
		d.structure(n, v, path)
	case v.Kind() == reflect.Slice:
		d.list(n, v, path)
	case v.Kind() == reflect.Map:
		d.hubs(n, v, path)
	default:
		panic("config: no way to decode " + v.Type().String()) // a mistake in Config, found by its first test
	}
}

func (d *decoder) structure(n *node, v reflect.Value, path keyPath) {
	if n.shape != mapping {
		d.unread(n.at, path.text, "found %s; expected a map with the keys %s", n.shape, strings.Join(keysOf(v.Type()), ", "))
		return
	}
	seen := map[string]place{}
	for _, e := range n.entries {
		where := path.key(e.key)
		if first, ok := seen[e.key]; ok {
			d.problem(e.at, path.key(shown(e.key)).text, "written twice; the first is at %s", first)
			continue
		}
		seen[e.key] = e.at
		if feature, ok := later[where.pattern]; ok {
			d.problem(e.at, where.text, notHere, feature)
			continue
		}
		field, ok := fieldOf(v, e.key)
		if !ok {
			d.unknown(e, v.Type(), path)
			continue
		}
		d.value(e.value, field, where)
	}
}

// notHere is what is said of a feature in [later].
const notHere = "%s not in this build of Fanfare; remove the key"

func (d *decoder) unknown(e entry, t reflect.Type, path keyPath) {
	text := "unknown key"
	switch near, elsewhere := nearest(e.key, keysOf(t)), home(e.key); {
	case near != "":
		text += "; the nearest known one is " + near
	case elsewhere != "":
		text += " here; it belongs in " + elsewhere
	default:
		text += "; known ones are " + strings.Join(keysOf(t), ", ")
	}
	if strings.ContainsAny(e.key, ":=") {
		text += " (a blank is missing after the colon?)"
	}
	name := shown(e.key)
	if e.value.shape == null && nearest(e.key, keysOf(t)) == "" {
		name = "..." // in {abc} the key is a value without a name, a secret perhaps
	}
	d.problem(e.at, path.key(name).text, "%s", text)
}

// shown is as much of an unknown key as is safe to show: in {primary:abc} the
// key is "primary:abc", secret and all.
func shown(key string) string {
	if i := strings.IndexAny(key, ":= "); i >= 0 {
		key = key[:i] + "..."
	}
	if len(key) > 64 {
		key = key[:64] + "..."
	}
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, key)
}

func (d *decoder) list(n *node, v reflect.Value, path keyPath) {
	if n.shape != list {
		d.unread(n.at, path.text, "found %s; expected a list", n.shape)
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	for i, item := range n.items {
		where := path.index(strconv.Itoa(i))
		if item.shape == null {
			d.unread(item.at, where.text, "an empty entry; expected %s", wish(v.Type().Elem()))
			continue
		}
		d.value(item, out.Index(i), where)
	}
	v.Set(out)
}

// hubs decodes the one map there is, from hub names to Hub.
func (d *decoder) hubs(n *node, v reflect.Value, path keyPath) {
	if n.shape != mapping {
		d.unread(n.at, path.text, "found %s; expected a map from hub names to settings", n.shape)
		return
	}
	out := map[string]Hub{}
	for _, e := range n.entries {
		name, err := hubName(e.key)
		if err != nil {
			d.problem(e.at, path.key(shown(e.key)).text, "not a hub name; expected \"*\", or a letter followed by at most 127 letters, digits or _ ` , . [ ]")
			continue
		}
		where := path.hub(name)
		if _, ok := out[name]; ok {
			d.problem(e.at, where.text, "written twice (hub names compare without regard to case); the first is at %s", d.placeOf(where.text))
			continue
		}
		hub := defaultHub()
		d.value(e.value, reflect.ValueOf(&hub).Elem(), where)
		d.places[where.text] = e.at
		out[name] = hub
	}
	v.Set(reflect.ValueOf(out))
}

func hubName(s string) (string, error) {
	if s == "*" {
		return s, nil
	}
	name, err := engine.ParseHubName(s)
	return string(name), err
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	prefixType   = reflect.TypeFor[netip.Prefix]()
	levelType    = reflect.TypeFor[slog.Level]()
	secretType   = reflect.TypeFor[Secret]()
)

func isScalar(t reflect.Type) bool {
	if t == prefixType {
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64:
		return true
	}
	return false
}

// wish says in words what a type expects.
func wish(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration such as 10s, 500ms or 2m"
	case t == prefixType:
		return "an IP address or a network such as 10.0.0.0/8"
	case t == levelType:
		return "debug, info, warn or error"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t.Kind() == reflect.Struct:
		return "a map"
	case t.Kind() == reflect.Slice:
		return "a list"
	}
	return "text"
}

func (d *decoder) scalar(text string, at place, v reflect.Value, path keyPath) {
	fail := func() { d.unread(at, path.text, "found %s; expected %s", quote(text), wish(v.Type())) }
	switch {
	case v.Type() == durationType:
		span, err := time.ParseDuration(text)
		if err != nil {
			fail()
			return
		}
		v.SetInt(int64(span))
	case v.Type() == levelType:
		level, ok := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo,
			"warn": slog.LevelWarn, "error": slog.LevelError}[strings.ToLower(text)]
		if !ok {
			fail()
			return
		}
		v.SetInt(int64(level))
	case v.Type() == prefixType:
		p, err := parsePrefix(text)
		if err != nil {
			fail()
			return
		}
		v.Set(reflect.ValueOf(p))
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		switch strings.ToLower(text) {
		case "true":
			v.SetBool(true)
		case "false":
			v.SetBool(false)
		default:
			fail()
		}
	default:
		i, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, strconv.IntSize)
		if err != nil {
			fail()
			return
		}
		v.SetInt(i)
	}
}

func parsePrefix(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// quote shows a value, cut where it is long.
func quote(s string) string {
	if len(s) > 64 {
		return fmt.Sprintf("%q... (%d bytes)", s[:64], len(s))
	}
	return strconv.Quote(s)
}

// fieldOf returns the field of the struct v that has the key.
func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("key") == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		keys = append(keys, t.Field(i).Tag.Get("key"))
	}
	return keys
}
