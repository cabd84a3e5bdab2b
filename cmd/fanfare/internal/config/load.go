package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// Sources are the places that settings come from.
type Sources struct {
	// File is the path of the YAML file; empty for none.
	File string
	// Environ is the environment, as os.Environ returns it.
	Environ []string
	// Flags are the settings of the command line.
	Flags []Flag
}

// Flag is one setting of the command line.
type Flag struct {
	// Name is the flag's, without dashes.
	Name string
	// Key is the path of what it sets: a single value.
	Key   string
	Value string
}

// maxFile bounds the file; a longer one is not settings.
const maxFile = 4 << 20

// Load reads and judges the settings. The error, if there is one, is of type
// [Problems] and holds every mistake that was found; the second result holds
// what is allowed but worth saying, with or without an error.
func Load(s Sources) (*Config, Problems, error) {
	d := &decoder{places: map[string]place{}, read: read}
	return d.result(d.load(s))
}

// load decodes all layers and judges what they say.
func (d *decoder) load(s Sources) *Config {
	c := Default()
	if s.File != "" {
		d.file(s.File, c)
	}
	d.environment(s.Environ, c)
	for _, f := range s.Flags {
		d.flag(f, c)
	}
	d.judge(c)
	return c
}

// result returns c, unless there are mistakes.
func (d *decoder) result(c *Config) (*Config, Problems, error) {
	d.problems.sort()
	d.warnings.sort()
	if len(d.problems) > 0 {
		return nil, d.warnings, d.problems
	}
	return c, d.warnings, nil
}

func (d *decoder) file(path string, c *Config) {
	at := place{layer: fromFile, name: path}
	text, err := d.read(path)
	if err != nil {
		d.problem(at, "", "%s", err)
		return
	}
	n, problem := parse(text, at)
	if problem != nil {
		d.problems = append(d.problems, *problem)
		return
	}
	d.source, d.empty = text, n.shape == null || n.shape == mapping && len(n.entries) == 0
	d.value(n, reflect.ValueOf(c).Elem(), keyPath{})
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, cause(err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("longer than %d bytes", maxFile)
	}
	return text, nil
}

// cause drops the path that the line names already.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

const prefix = "FANFARE_"

// elsewhere are the variables that are ours and no key of the file.
var elsewhere = []string{"FANFARE_CONFIG", "FANFARE_CONNECTION_STRING"}

// serviceLink matches what Kubernetes sets in every pod beside a service that is
// called "fanfare".
var serviceLink = regexp.MustCompile(`^FANFARE_(SERVICE_(HOST|PORT)|PORT)(_|$)`)

func (d *decoder) environment(environ []string, c *Config) {
	set := map[string]string{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, prefix) && value != "" && !slices.Contains(elsewhere, name) {
			set[name] = value
		}
	}
	// In the order of names FANFARE_HUBS, which replaces all hubs, precedes
	// those that change one of them.
	sorted := make([]string, 0, len(set))
	for name := range set {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	for _, name := range sorted {
		d.variable(name, set[name], c)
	}
}

func (d *decoder) variable(name, value string, c *Config) {
	at := place{layer: fromEnvironment, name: name}
	for _, k := range allKeys() {
		if k.Env != name || strings.HasPrefix(k.Path, "hubs.") {
			continue
		}
		v, path := find(reflect.ValueOf(c).Elem(), keyPath{}, k.Path)
		d.text(value, at, v, path)
		return
	}
	if hub, key, ok := hubVariable(name); ok {
		d.hubKey(hub, key, value, at, c)
		return
	}
	for pattern, feature := range later {
		of := name == envName(pattern) || strings.HasPrefix(name, envName(pattern)+"_")
		if key, ok := strings.CutPrefix(pattern, "hubs.*."); ok {
			of = strings.HasPrefix(name, envName("hubs")+"_") && strings.HasSuffix(name, "_"+snake(key))
		}
		if of {
			d.problem(at, pattern, "%s not in this build of Fanfare; unset the variable", feature)
			return
		}
	}
	if serviceLink.MatchString(name) {
		return
	}
	// An error would be a trap: all kinds of things set variables for programs.
	text := "no setting has this variable; it is not used"
	if near := nearest(name, names(allKeys())); near != "" {
		text += " (the nearest one is " + near + ")"
	}
	d.warn(at, "", "%s", text)
}

// hubVariable takes FANFARE_HUBS_CHAT_ANONYMOUS_CONNECT_POLICY apart.
func hubVariable(name string) (hub, key string, ok bool) {
	rest, ok := strings.CutPrefix(name, envName("hubs")+"_")
	if !ok {
		return "", "", false
	}
	for _, k := range hubKeys() {
		suffix := strings.TrimPrefix(envName(k), prefix)
		if rest == suffix {
			return "*", k, true
		}
		if hub, ok := strings.CutSuffix(rest, "_"+suffix); ok {
			return strings.ToLower(hub), k, true
		}
	}
	return "", "", false
}

// hubKeys returns the keys of a hub that have a variable, sections included.
func hubKeys() []string {
	all := keysOf(reflect.TypeFor[Hub]())
	for _, k := range allKeys() {
		if path, ok := strings.CutPrefix(k.Path, "hubs.*."); ok && k.Env != "" && !slices.Contains(all, path) {
			all = append(all, path)
		}
	}
	return all
}

func (d *decoder) hubKey(hub, key, value string, at place, c *Config) {
	name, err := hubName(hub)
	if err != nil {
		d.problem(at, "hubs", "%s is not a hub name; expected a letter followed by at most 127 letters, digits or _", quote(hub))
		return
	}
	h, ok := c.Hubs[name]
	if !ok {
		h = defaultHub()
	}
	if c.Hubs == nil {
		c.Hubs = map[string]Hub{}
	}
	field, path := find(reflect.ValueOf(&h).Elem(), keyPath{"hubs", "hubs"}.hub(name), key)
	d.text(value, at, field, path)
	c.Hubs[name] = h
}

// text decodes what a variable or a flag holds: a single value as it stands, and
// all else as YAML, except that simple lists may also be written with commas.
func (d *decoder) text(value string, at place, v reflect.Value, path keyPath) {
	if isScalar(v.Type()) {
		d.places[path.text] = at
		d.scalar(value, at, v, path)
		return
	}
	trimmed := strings.TrimSpace(value)
	if v.Kind() == reflect.Slice && isScalar(v.Type().Elem()) && !strings.HasPrefix(trimmed, "[") {
		n := &node{shape: list, at: at}
		for item := range strings.SplitSeq(trimmed, ",") {
			if item = strings.TrimSpace(item); item != "" {
				n.items = append(n.items, &node{shape: scalar, text: item, at: at})
			}
		}
		d.value(n, v, path)
		return
	}
	n, problem := parse([]byte(value), at)
	if problem != nil {
		problem.Path = path.text
		d.problems = append(d.problems, *problem)
		return
	}
	d.value(n, v, path)
}

func (d *decoder) flag(f Flag, c *Config) {
	v, path := find(reflect.ValueOf(c).Elem(), keyPath{}, f.Key)
	d.text(f.Value, place{layer: fromFlag, name: f.Name}, v, path)
}

// find returns the field below v, which stands at at, at a path without hubs.
func find(v reflect.Value, at keyPath, path string) (reflect.Value, keyPath) {
	for path != "" {
		key, rest := first(v, path)
		v, _ = fieldOf(v, key)
		at, path = at.key(key), rest
	}
	return v, at
}

// first takes the first key off a path below the struct v. Keys may hold dots.
func first(v reflect.Value, path string) (key, rest string) {
	for _, k := range keysOf(v.Type()) {
		if path == k || strings.HasPrefix(path, k+".") && len(k) > len(key) {
			key = k
		}
	}
	if key == "" {
		panic("config: there is no key " + path)
	}
	return key, strings.TrimPrefix(path[len(key):], ".")
}
