package filter_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/fanfare/fanfare/engine/filter"
)

// groupSet is the simplest GroupSet.
type groupSet map[string]bool

func (g groupSet) Has(name string) bool { return g[name] }
func (g groupSet) Len() int             { return len(g) }

var (
	nobody = &filter.Subject{ConnectionID: "c0"}
	ann    = &filter.Subject{
		ConnectionID: "conn-1", UserID: "ann", Protocol: "json.webpubsub.azure.v1",
		Groups: groupSet{"room": true, "news": true},
	}
	abc    = &filter.Subject{ConnectionID: "c1", UserID: "abc"}
	oneil  = &filter.Subject{ConnectionID: "c2", UserID: "o'neil"}
	doe    = &filter.Subject{ConnectionID: "c3", UserID: "Doe, John"}
	strict = &filter.Subject{ConnectionID: "c4", UserID: "Straße"}
	emoji  = &filter.Subject{ConnectionID: "c5", UserID: "a\U0001F600b"}
)

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		filter string
		s      *filter.Subject
		want   bool
	}{
		// Comparing.
		{"userId eq 'abc'", abc, true},
		{"userId eq 'ABC'", abc, false},
		{"userId ne 'ABC'", abc, true},
		{"userid eq 'abc' and USERID eq 'abc'", abc, true},
		{"userId eq null", nobody, true},
		{"userId eq null", abc, false},
		{"null eq userId", nobody, true},
		{"userId ne null", abc, true},
		{"protocol eq null", abc, true},
		{"protocol eq 'json.webpubsub.azure.v1'", ann, true},
		{"connectionId eq 'conn-1'", ann, true},
		{"userId eq 'o''neil'", oneil, true},
		{"userId eq ''", nobody, false},
		{"userId eq 1", abc, false},
		{"userId ne 1", abc, true},
		{"groups eq 'room'", ann, false},
		{"1 eq 1", nobody, true},
		{"-1 lt +1", nobody, true},
		{"2147483647 gt -2147483648", nobody, true},
		{"length(userId) eq 3", abc, true},
		{"length(userId) ge 3", abc, true},
		{"length(userId) le 3", abc, true},
		{"length(userId) gt 3", abc, false},
		{"length(userId) lt 4", abc, true},
		{"length(userId) lt 4", nobody, false},
		{"length(userId) ge 0", nobody, false},
		{"null lt 1", nobody, false},
		{"1 ge null", nobody, false},
		{"userId eq null eq true", nobody, true},

		// Combining.
		{"true", nobody, true},
		{"false", nobody, false},
		{"true or false and false", nobody, true},
		{"(true or false) and false", nobody, false},
		{"not false and true", nobody, true},
		{"not (true and false)", nobody, true},
		{"not not true", nobody, true},
		{"not ('admin' in groups)", ann, true},
		{"not 'admin' in groups", ann, true},
		{"not endswith(userId, 'c')", abc, false},
		{"not (length(userId) gt 5)", abc, true},
		{"\tuserId \n eq\r'abc' ", abc, true},
		{"userId eq'abc'and(true)", abc, true},

		// Membership.
		{"'room' in groups", ann, true},
		{"'Room' in groups", ann, false},
		{"'room' in Groups", nobody, false},
		{"userId in groups", nobody, false},
		{"1 in groups", ann, false},
		{"userId in ('user1', 'abc')", abc, true},
		{"userId in('user1','ABC')", abc, false},
		{"userId in ('Doe, John', 'Alice')", doe, true},
		{"userId in ('O', 'o''neil')", oneil, true},
		{"userId in (null)", nobody, true},
		{"userId in ()", abc, false},
		{"length(userId) in (1, 2, 3)", abc, true},
		{"userId in (concat('a','bc'), protocol)", abc, true},
		{"userId in ('1','2','3','4','5','6','7','8','9','abc')", abc, true},
		{"userId in ('1','2','3','4','5','6','7','8','9','')", nobody, false},
		{"userId in ('1','2','3','4','5','6','7','8','9','x')", abc, false},
		{"1 in ('1','2','3','4','5','6','7','8','9','')", abc, false},
		{"userId in ('u1','u2','ann') and 'room' in groups", ann, true},
		{"connectionId eq 'conn-1' and 'news' in groups and protocol eq 'json.webpubsub.azure.v1'", ann, true},

		// Functions.
		{"length(groups) gt 1", ann, true},
		{"length(groups) eq 0", nobody, true},
		{"tolower('ABC') eq userId", abc, true},
		{"toupper(userId) eq 'ABC'", abc, true},
		{"tolower(userId) eq null", nobody, true},
		{"trim(' abc\t') eq userId", abc, true},
		{"contains(userId, 'b')", abc, true},
		{"contains(userId, 'B')", abc, false},
		{"contains(userId, 'b')", nobody, false},
		{"not contains(userId, 'b')", nobody, true},
		{"startswith(userId, 'ab')", abc, true},
		{"startswith(userId, '')", abc, true},
		{"startswith(null, '')", abc, false},
		{"endswith(userId, 'bc')", abc, true},
		{"endswith(userId, 'b')", abc, false},
		{"indexof(userId, 'c') eq 2", abc, true},
		{"indexof(userId, 'x') eq -1", abc, true},
		{"indexof(userId, 'x') eq -1", nobody, true},
		{"indexof(userId, '') eq 0", abc, true},
		{"indexof(userId, 'e') eq 5", strict, true},
		{"indexof(userId, 'b') eq 3", emoji, true},
		{"concat(userId, 'd') eq 'abcd'", abc, true},
		{"concat(userId, 'd') eq 'd'", nobody, true},
		{"concat('d', userId) eq 'd'", nobody, true},
		{"concat(null, userId) eq null", nobody, true},
		{"substring(userId, 1) eq 'bc'", abc, true},
		{"substring(userId, 1, 1) eq 'b'", abc, true},
		{"substring(userId, 3) eq ''", abc, true},
		{"substring(userId, 4) eq null", abc, true},
		{"substring(userId, 1, 3) eq null", abc, true},
		{"substring(userId, -1) eq null", abc, true},
		{"substring(userId, 0, -1) eq null", abc, true},
		{"substring(userId, 0, 2147483647) eq null", abc, true},
		{"substring(userId, 1) eq null", nobody, true},
		{"substring(connectionId, 1) eq 'onn-1'", ann, true},
		{"length(userId) eq 6", strict, true},
		{"length(userId) eq 4", emoji, true},
		{"substring(userId, 4, 1) eq 'ß'", strict, true},
		{"substring(userId, 1, 2) eq '\U0001F600'", emoji, true},
		{"length(substring(userId, 0, 2)) eq 2", emoji, true},
		{"length(substring(userId, 2)) eq 2", emoji, true},

		// Mistakes that the check cannot see, because it has no user: no match,
		// and no match when turned around either.
		{"contains(userId, 1)", abc, false},
		{"not contains(userId, 1)", abc, false},
		{"true or contains(userId, 1)", abc, false},
		{"true or contains(userId, 1)", nobody, true},
		{"length(userId) gt 'a'", abc, false},
		{"not (length(userId) gt 'a')", abc, false},
		{"substring(tolower(userId), 0) in groups", abc, false},
	} {
		f, err := filter.Parse(tt.filter)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.filter, err)
			continue
		}
		if got := f.Match(tt.s); got != tt.want {
			t.Errorf("%q for %+v: %v, want %v", tt.filter, *tt.s, got, tt.want)
		}
		back, err := filter.Parse(f.String())
		if err != nil {
			t.Errorf("%q prints as %q: %v", tt.filter, f, err)
		} else if got := back.Match(tt.s); got != tt.want || back.String() != f.String() {
			t.Errorf("%q prints as %q, which prints as %q and gives %v", tt.filter, f, back, got)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct{ filter, expr, detail string }{
		// Types.
		{"userId", "userId", "Type 'string', expect 'bool'."},
		{"1", "1", "Type 'int', expect 'bool'."},
		{"null", "null", "Type 'null', expect 'bool'."},
		{"groups", "groups", "Type 'collection', expect 'bool'."},
		{"userId lt 1", "userId lt 1", "Type 'string', expect 'int'."},
		{"userId  lt\t1", "userId lt 1", "Type 'string', expect 'int'."},
		{"true lt 1", "True lt 1", "Type 'bool', expect 'int'."},
		{"groups ge 1", "groups ge 1", "Type 'collection', expect 'int'."},
		{"( not 'a' )", "not 'a'", "Type 'string', expect 'bool'."},
		{"not length(userId) gt 5", "not length(userId)", "Type 'null', expect 'bool'."},
		{"true and 1", "True and 1", "Type 'int', expect 'bool'."},
		{"false and 1", "False and 1", "Type 'int', expect 'bool'."},
		{"true or (1 eq 1 and 'o''neil')", "(1 eq 1) and 'o'neil'", "Type 'string', expect 'bool'."},
		{"(not true) and 1", "(not True) and 1", "Type 'int', expect 'bool'."},
		{"('a' in groups) and 1", "('a' in groups) and 1", "Type 'int', expect 'bool'."},
		{"userId in ('a',  'b') and 1", "(userId in ('a',  'b')) and 1", "Type 'int', expect 'bool'."},
		{"tolower(5) eq 'a'", "tolower(5)", "Type 'int', expect 'string'."},
		{"contains('a', 5)", "contains('a',5)", "Type 'int', expect 'string'."},
		{"indexof(connectionId, true) eq 1", "indexof(connectionId,True)", "Type 'bool', expect 'string'."},
		{"concat(null, 5) eq 'a'", "concat(null,5)", "Type 'null', expect 'string'."},
		{"concat('a', groups) eq 'a'", "concat('a',groups)", "Type 'collection', expect 'string'."},
		{"substring(userId, 'a') eq 'a'", "substring(userId,'a')", "Type 'string', expect 'int'."},
		{"substring(userId, 1, null) eq 'a'", "substring(userId,1,null)", "Type 'null', expect 'int'."},
		{"substring(connectionId, 1) gt 1", "substring(connectionId,1) gt 1", "Type 'string', expect 'int'."},
		{"'a' in 5", "'a' in 5", "Type 'int', expect 'string'."},
		{"'a' in null", "'a' in null", "Type 'null', expect 'string'."},

		// What filters do not have.
		{"ab", "ab", "Token 'ab' is not supported."},
		{"not ab", "not ab", "Token 'ab' is not supported."},
		{"ab eq 1", "ab eq 1", "Token 'ab' is not supported."},
		{"userId in ('a', ab)", "userId in ('a', ab)", "Token 'ab' is not supported."},
		{"tolower(ab) eq 'a'", "tolower(ab)", "Token 'ab' is not supported."},
		{"invalid(ab,c)", "invalid(ab,c)", "Token 'invalid(ab,c)' is not supported."},
		{"ToLower(userId) eq 'a'", "ToLower(userId)", "Token 'ToLower(userId)' is not supported."},
		{"userId eq True", "userId eq True", "Token 'True' is not supported."},
		{"1 eq 2147483648", "1 eq 2147483648", "Token '2147483648' is not supported."},
		{"1 eq -2147483649", "1 eq -2147483649", "Token '-2147483649' is not supported."},
		{"1 eq 1L", "1 eq 1L", "Token '1L' is not supported."},
		{"1 eq 1.5", "1 eq 1.5", "Token '1.5' is not supported."},
		{"1 eq 2020-01-01T00:00:00Z", "1 eq 2020-01-01T00:00:00Z", "Token '2020-01-01T00:00:00Z' is not supported."},
		{"a.b eq 1", "a.b eq 1", "Token 'a.b' is not supported."},
		{"groups/any(g: g eq 'a')", "groups/any(g: g eq 'a')", "Token 'groups/any' is not supported."},
		{"length(userId) add 1 gt 2", "length(userId) add 1 gt 2", "Token 'add' is not supported."},
		{"userId has 'a'", "userId has 'a'", "Token 'has' is not supported."},
		{"ab add 1 gt 2", "ab add 1 gt 2", "Token 'ab' is not supported."},
		{"-userId eq 1", "-userId eq 1", "Token '-' is not supported."},

		// Nonsense.
		{"length() eq 1", "length()", "Invalid token 'length()'."},
		{"length(userId, 'a') eq 1", "length(userId,'a')", "Invalid token 'length(userId,'a')'."},
		{"length(5) eq 1", "length(5)", "Invalid token 'length(5)'."},
		{"substring(userId) eq 'a'", "substring(userId)", "Invalid token 'substring(userId)'."},
		{"contains(userId eq 'a')", "contains(userId eq 'a')", "Invalid token 'contains(userId eq 'a')'."},
		{"userId in 'abc'", "userId in 'abc'", "Invalid token 'abc'."},
		{"", "", "Invalid token ''. Expected an operand at position 0."},
		{"  ", "  ", "Invalid token ''. Expected an operand at position 2."},
		{"userId eq", "userId eq", "Invalid token ''. Expected an operand at position 9."},
		{"userId eq )", "userId eq )", "Invalid token ')'. Expected an operand at position 10."},
		{"userId eq 'a' x", "userId eq 'a' x", "Invalid token 'x'. Expected an operator or the end of the filter at position 14."},
		{"userId eq 'a' AND true", "userId eq 'a' AND true", "Invalid token 'AND'. Expected an operator or the end of the filter at position 14."},
		{"(true", "(true", "Invalid token ''. Expected an operator or a closing parenthesis at position 5."},
		{"contains(userId 'a')", "contains(userId 'a')", "Invalid token ''a''. Expected a comma, an operator or a closing parenthesis at position 16."},
		{"userId eq 'a", "userId eq 'a", "Invalid token ''a'. The string that starts at position 10 has no closing quote."},
		{"userId eq 'a''", "userId eq 'a''", "Invalid token ''a'''. The string that starts at position 10 has no closing quote."},
		{"userId eq 'a' && true", "userId eq 'a' && true", "Invalid token '&'. Expected an operator or the end of the filter at position 14."},
		{"userId eq '\xff'", "userId eq '\uFFFD'", "The filter is not valid UTF-8."},
	} {
		f, err := filter.Parse(tt.filter)
		if err == nil {
			t.Errorf("Parse(%q) = %q, want an error", tt.filter, f)
			continue
		}
		want := fmt.Sprintf("Invalid syntax for '%s': %s (Parameter 'filter')", tt.expr, tt.detail)
		if err.Error() != want {
			t.Errorf("Parse(%q):\n got %s\nwant %s", tt.filter, err, want)
		}
		var fe *filter.Error
		if !errors.As(err, &fe) || fe.Expr != tt.expr || fe.Detail != tt.detail {
			t.Errorf("Parse(%q): %#v", tt.filter, err)
		}
	}
}

func TestBounds(t *testing.T) {
	nest := func(open, mid, shut string, n int) string {
		return strings.Repeat(open, n) + mid + strings.Repeat(shut, n)
	}
	for _, tt := range []struct {
		name, filter, err string
	}{
		{"100 parentheses", nest("(", "true", ")", 100), ""},
		{"101 parentheses", nest("(", "true", ")", 101), "nests deeper than 100 levels at position 100."},
		{"100 nots", nest("not ", "true", "", 100), ""},
		{"101 nots", nest("not ", "true", "", 101), "nests deeper than 100 levels"},
		{"99 calls", nest("trim(", "userId", ")", 99) + " eq null", ""},
		{"101 calls", nest("trim(", "userId", ")", 101) + " eq null", "nests deeper than 100 levels"},
		{"101 lists", nest("1 in (", "1", ")", 101), "nests deeper than 100 levels"},
		{"101 minuses", nest("-", "userId", "", 101) + " eq 1", "nests deeper than 100 levels"},
		{"500 clauses", strings.Repeat("userId eq 'a' or ", 500) + "true", ""},
		{"full length", "userId eq '" + strings.Repeat("a", filter.MaxLength-12) + "'", ""},
		{"one over", "userId eq '" + strings.Repeat("a", filter.MaxLength-11) + "'", "The filter has 16385 bytes, at most 16384 are allowed."},
	} {
		f, err := filter.Parse(tt.filter)
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.err == "":
			if _, err := filter.Parse(f.String()); err != nil {
				t.Errorf("%s: what it prints: %v", tt.name, err)
			}
		case err == nil || !strings.Contains(err.Error(), tt.err):
			t.Errorf("%s: got %v, want ...%s", tt.name, err, tt.err)
		}
	}
}

func TestString(t *testing.T) {
	for _, tt := range []struct{ filter, want string }{
		{"((userId eq 'o''neil'))", "userId eq 'o''neil'"},
		{"USERID in ( 'a' ,'b' )", "userId in ('a','b')"},
		{"(true or false) and true", "(true or false) and true"},
		{"(true and false) or true", "true and false or true"},
		{"true or (false or true)", "true or (false or true)"},
		{"not (1 eq 2)", "not (1 eq 2)"},
		{"(not true) eq false", "not true eq false"},
		{"(userId eq null) in (true)", "(userId eq null) in (true)"},
		{"substring( userId,+1 ) eq null", "substring(userId,1) eq null"},
	} {
		f, err := filter.Parse(tt.filter)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.filter, err)
		} else if f.String() != tt.want {
			t.Errorf("%q prints as %q, want %q", tt.filter, f, tt.want)
		}
	}
}

func TestConcurrentMatch(t *testing.T) {
	f, err := filter.Parse("tolower(userId) in ('ann','b','c','d','e','f','g','h','i') and 'room' in groups")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if !f.Match(ann) || f.Match(abc) {
					t.Error("wrong under concurrency")
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestMatchDoesNotAllocate(t *testing.T) {
	for _, text := range []string{
		"userId eq 'ann'",
		"userId in ('u1','u2') or 'room' in groups and not (protocol eq null)",
		"startswith(userId, 'a') and length(groups) gt 1 and substring(userId, 0, 1) eq 'a'",
		"userId in ('1','2','3','4','5','6','7','8','9','ann')",
	} {
		f, err := filter.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { f.Match(ann) }); n != 0 {
			t.Errorf("%q: %v allocations a match, want 0", text, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"userId in ('u1','u2') and 'room' in groups", "userId eq 'o''neil'", "not ('admin' in groups)",
		"length(groups) gt 1", "not length(userId) gt 5", "ab eq 1", "invalid(ab,c)", "userId lt 1",
		"substring(concat(userId, 'x'), 1, 2) eq null or indexof(tolower(trim(userId)), 'a') ge -1",
		"((((1 eq 2147483648))))", "groups/any(g: g eq 'a')", "length(userId) add 1 gt 2", "'\U0001F600' eq userId",
	} {
		f.Add(seed)
	}
	subjects := []*filter.Subject{nobody, ann, abc, oneil, strict, emoji}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := filter.Parse(text)
		if err != nil {
			var fe *filter.Error
			if !errors.As(err, &fe) || fe.Detail == "" {
				t.Fatalf("Parse(%q): %#v", text, err)
			}
			return
		}
		printed := a.String()
		if len(printed) > filter.MaxLength {
			return // printing adds blanks, and may go over the bound
		}
		b, err := filter.Parse(printed)
		if err != nil {
			t.Fatalf("%q prints as %q: %v", text, printed, err)
		}
		if again := b.String(); again != printed {
			t.Fatalf("%q prints as %q, which prints as %q", text, printed, again)
		}
		for _, s := range subjects {
			if a.Match(s) != b.Match(s) {
				t.Fatalf("%q and what it prints, %q, differ for %+v", text, printed, *s)
			}
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	var list strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&list, "'user-%d',", i)
	}
	for _, bb := range []struct{ name, filter string }{
		{"case=eq", "userId eq 'ann'"},
		{"case=group", "'room' in groups"},
		{"case=and", "userId in ('u1','u2','ann') and not ('admin' in groups)"},
		{"case=list1000", "userId in (" + list.String() + "'x')"},
		{"case=functions", "startswith(tolower(userId), 'a') and length(groups) gt 1"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			f, err := filter.Parse(bb.filter)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				f.Match(ann)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := filter.Parse("userId in ('u1','u2','ann') and not ('admin' in groups)"); err != nil {
			b.Fatal(err)
		}
	}
}
