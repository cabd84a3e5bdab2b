package strict_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/authn/internal/strict"
)

func TestSplit(t *testing.T) {
	p, n := strict.Split("aa.b.ccc")
	if want := (strict.Parts{Signed: "aa.b", Header: "aa", Payload: "b", Signature: "ccc"}); p != want || n != 3 {
		t.Errorf("got %+v and %d; want %+v and 3", p, n, want)
	}
	for text, want := range map[string]int{"": 1, "a": 1, "a.b": 2, "a.b.c.d": 4, "....": 5} {
		if p, n := strict.Split(text); n != want || p != (strict.Parts{}) {
			t.Errorf("%q: got %+v and %d; want %d and nothing", text, p, n, want)
		}
	}
}

// Of the spellings of some bytes one is accepted.
func TestDecode(t *testing.T) {
	for text, want := range map[string]string{"": "", "YQ": "a", "YWI": "ab", "YWJj": "abc", "-_8": "\xfb\xff"} {
		if got, ok := strict.Decode([]byte("x"), text); !ok || string(got) != "x"+want {
			t.Errorf("%q: got %q, %v; want %q", text, got, ok, "x"+want)
		}
	}
	for _, text := range []string{"YQ==", "YR", "Y", "YWI=", "YW\nJj", "YWJj\r\n", "Y Q", "+/8", "\x00"} {
		if got, ok := strict.Decode(nil, text); ok {
			t.Errorf("%q: got %q; want none", text, got)
		}
	}
}

// read returns the members of an object that is all of text, and what was wrong.
// Arrays are read item by item, each to a line.
func read(text []byte) (members map[string]string, kinds map[string]strict.Kind, wrong string) {
	sc, ok := strict.NewScanner(text)
	if !ok {
		return nil, nil, "it is not UTF-8"
	}
	members, kinds = make(map[string]string), make(map[string]strict.Kind)
	for name, ok := sc.Next(); ok && sc.Err == ""; name, ok = sc.Next() {
		k, _ := sc.Peek()
		kinds[name] = k
		if k != strict.Array {
			members[name], _, _ = sc.Value(1)
			continue
		}
		var items []string
		for first := true; sc.Item(first) && sc.Err == ""; first = false {
			v, _, _ := sc.Value(2)
			items = append(items, v)
		}
		members[name] = strings.Join(items, "\n")
	}
	return members, kinds, sc.Err
}

func TestScanner(t *testing.T) {
	members, kinds, wrong := read([]byte(` { "s" : "a\u00e9\n\ud83d\ude00" , "n":-1.5e+3,"t":true,"0":null,"o":{"a":[1,{}]},"l":[ "x" , 2, [] ],"e":[]} `))
	for name, want := range map[string]struct {
		value string
		kind  strict.Kind
	}{
		"s": {"aé\n😀", strict.String}, "n": {"-1.5e+3", strict.Number}, "t": {"true", strict.Bool}, "0": {"null", strict.Null},
		"o": {`{"a":[1,{}]}`, strict.Object}, "l": {"x\n2\n[]", strict.Array}, "e": {"", strict.Array},
	} {
		if wrong != "" || members[name] != want.value || kinds[name] != want.kind {
			t.Errorf("%s: got %q of kind %d (%s); want %q of kind %d", name, members[name], kinds[name], wrong, want.value, want.kind)
		}
	}
}

func TestScannerRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "it is not an object",
		"null":                  "it is not an object",
		"[]":                    "it is not an object",
		`{} {}`:                 "something follows the object",
		`{"a":1`:                "a comma or a closing brace is missing",
		`{"a":1,}`:              "a string is missing",
		`{"a" 1}`:               "a colon is missing",
		`{"a":}`:                "a value is missing",
		`{"a":nul}`:             "a value is misspelt",
		`{"a":01}`:              "a number is malformed",
		`{"a":1.}`:              "a number is malformed",
		`{"a":[1 2]}`:           "a comma or a closing bracket is missing",
		`{"a":[1,]}`:            "a value is missing",
		`{"a":"b`:               "a string has no end",
		"{\"a\":\"\x01\"}":      "a string holds a control character",
		`{"a":"\x"}`:            "a string holds an unknown escape",
		`{"a":"\ud800"}`:        "a string holds a malformed \\u escape",
		"{\"a\":\"\xff\"}":      "it is not UTF-8",
		nested(`{"a":`, 15, 15): "",
		nested(`{"a":`, 16, 16): "it nests too deep",
		nested(`{"a":`, 9e3, 0): "it nests too deep",
	} {
		if _, _, wrong := read([]byte(text)); wrong != want {
			t.Errorf("%.40q: got %q; want %q", text, wrong, want)
		}
	}
}

// nested returns an object whose member is objects in objects.
func nested(open string, opened, closed int) string {
	return strings.Repeat(open, opened) + "{}" + strings.Repeat("}", closed)
}

// FuzzScanner reads any object as encoding/json does, or refuses it.
func FuzzScanner(f *testing.F) {
	for _, text := range []string{
		`{"aud":"https://a/client/hubs/h","exp":1.5e9,"role":["a",null,{"b":[]}]}`, `{"a":"\u00e9\ud83d\ude00\/"}`, `{"a":"é","\u0062":-0}`, `{"a":01}`, ` {} `, `{"a":"\ud800"}`, `null`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		members, kinds, wrong := read(text)
		if wrong != "" {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatalf("%q was accepted: %v", text, err)
		}
		if len(members) != len(want) {
			t.Fatalf("%q: got %d members; want %d", text, len(members), len(want))
		}
		for name, raw := range want {
			got := []byte(members[name])
			switch kinds[name] {
			case strict.Array: // whose items are joined
				continue
			case strict.String:
				var s string
				if err := json.Unmarshal(raw, &s); err != nil {
					t.Fatal(err)
				}
				raw = []byte(s)
			}
			if !bytes.Equal(got, raw) {
				t.Errorf("%q: got %q for %q; want %q", text, got, name, raw)
			}
		}
	})
}

// FuzzDecode accepts what encodes to the same again.
func FuzzDecode(f *testing.F) {
	f.Add("YWJj")
	f.Add("YR")
	f.Add("YQ\n")
	f.Fuzz(func(t *testing.T, text string) {
		if got, ok := strict.Decode(nil, text); ok && base64.RawURLEncoding.EncodeToString(got) != text {
			t.Errorf("%q was accepted as %q", text, got)
		}
	})
}
