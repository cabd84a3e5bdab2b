package config

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// nearest returns the one of known that key was most likely meant to be, or ""
// if none is near enough to say so: at most a third of it may differ.
func nearest(key string, known []string) string {
	if len(key) > 128 {
		return ""
	}
	best, distance := "", 1+max(len(key), 3)/3
	for _, k := range known {
		if d := edits(strings.ToLower(key), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// edits counts the insertions, deletions, replacements and swaps of neighbours
// that make b of a (optimal string alignment).
func edits(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			same := 1
			if a[i-1] == b[j-1] {
				same = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+same)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// Key describes one setting, for help texts and tests.
type Key struct {
	// Path names it: "limits.messageBytes", "hubs.*.eventHandlers".
	Path string
	// Env is its variable; empty for a key that only stands inside a list.
	Env string
	// Doc says what it does, and Default is what holds if it is not set.
	Doc, Default string
	// List tells that it is a list, and Secret that it is never shown.
	List, Secret bool
}

// Keys returns every setting, in the order of [Config].
func Keys() []Key { return slices.Clone(allKeys()) }

var allKeys = sync.OnceValue(func() []Key {
	return keys(reflect.ValueOf(*Default()), keyPath{}, true)
})

func keys(v reflect.Value, at keyPath, reachable bool) []Key {
	var out []Key
	for i := range v.NumField() {
		f, value := v.Type().Field(i), v.Field(i)
		here := at.key(f.Tag.Get("key"))
		one := Key{Path: here.pattern, Doc: f.Tag.Get("doc"), Secret: f.Type == secretType}
		if reachable {
			one.Env = envName(here.pattern)
		}
		switch {
		case isScalar(f.Type):
			one.Default = written(value)
			out = append(out, one)
		case f.Type.Kind() == reflect.Struct:
			out = append(out, keys(value, here, reachable)...)
		case f.Type.Kind() == reflect.Map:
			out = append(out, one)
			out = append(out, keys(reflect.ValueOf(defaultHub()), here.hub("*"), true)...)
		case f.Type.Kind() == reflect.Slice:
			one.List = true
			out = append(out, one)
			if f.Type.Elem().Kind() == reflect.Struct && !isScalar(f.Type.Elem()) {
				out = append(out, keys(reflect.Zero(f.Type.Elem()), here.index(""), false)...)
			}
		}
	}
	return out
}

// written returns a single value as it stands in a file.
func written(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case slog.Level:
		return strings.ToLower(x.String())
	case time.Duration:
		return span(x)
	}
	return fmt.Sprint(v.Interface())
}

// span writes a duration as people do: 2h, not 2h0m0s.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// home returns the place where key is known, if it is known in one place alone.
func home(key string) string { return homes()[key] }

var homes = sync.OnceValue(func() map[string]string {
	sections := map[string]bool{}
	for _, k := range allKeys() {
		for p := k.Path; p != ""; p, _ = cut(p) {
			sections[p] = true
		}
	}
	found := map[string]string{}
	for path := range sections {
		parent, last := cut(path)
		if _, twice := found[last]; twice {
			parent = ""
		}
		found[last] = parent
	}
	return found
})

func cut(path string) (parent, last string) {
	i := strings.LastIndexByte(path, '.')
	return path[:max(i, 0)], path[i+1:]
}

// envName returns the variable of a key by its pattern: FANFARE_ and the path in
// upper snake case, hubs' "*" left out.
func envName(pattern string) string {
	var b strings.Builder
	b.WriteString("FANFARE")
	for word := range strings.SplitSeq(pattern, ".") {
		if word == "*" {
			continue
		}
		b.WriteByte('_')
		b.WriteString(snake(word))
	}
	return b.String()
}

// snake spells camelCase as CAMEL_CASE.
func snake(word string) string {
	var b strings.Builder
	for i := range len(word) {
		c := word[i]
		if 'A' <= c && c <= 'Z' && i > 0 {
			b.WriteByte('_')
		}
		b.WriteByte(c)
	}
	return strings.ToUpper(b.String())
}

// names returns the variables in keys, in order.
func names(keys []Key) []string {
	var out []string
	for _, k := range keys {
		if k.Env != "" {
			out = append(out, k.Env)
		}
	}
	slices.Sort(out)
	return out
}
