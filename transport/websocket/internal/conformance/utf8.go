package conformance

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// kosme is a Greek word whose letters have two and three bytes.
const kosme = "\u03ba\u1f79\u03c3\u03bc\u03b5"

// utf8 are cases 6. Those from 6.5 on are of Markus Kuhn's UTF-8 stress test.
func (l *list) utf8() {
	echo := func(id, about, p string, steps []Step) {
		l.add(id, about, Case{Steps: steps, Want: texts(p), End: byClient})
	}
	echo("6.1.1", "empty text", "", once(text("")))
	echo("6.1.2", "three empty fragments", "", once(first(""), middle(""), last("")))
	echo("6.1.3", "three fragments, the first and the last of which are empty", "middle frame payload", once(first(""), middle("middle frame payload"), last("")))
	const latin = "Hello-\u00b5@\u00df\u00f6\u00e4\u00fc\u00e0\u00e1-UTF-8!!"
	const cut = len("Hello-\u00b5@\u00df\u00f6\u00e4")
	echo("6.2.1", "UTF-8 in one frame", latin, once(text(latin)))
	echo("6.2.2", "UTF-8 in two fragments, cut between characters", latin, once(first(latin[:cut]), last(latin[cut:])))
	echo("6.2.3", "UTF-8 in fragments of one byte", latin, once(fragments(opText, latin, 1)...))
	echo("6.2.4", "Greek in fragments of one byte", kosme, once(fragments(opText, kosme, 1)...))

	const bad = kosme + "\xed\xa0\x80edited"
	l.add("6.3.1", "text that is not UTF-8 in one frame", Case{Steps: once(text(bad)), End: notUTF8})
	l.add("6.3.2", "text that is not UTF-8 in fragments of one byte", Case{Steps: once(fragments(opText, bad, 1)...), End: notUTF8})
	l.failFast()

	for i, group := range stress() {
		for j, p := range group {
			id := fmt.Sprintf("6.%d.%d", 5+i, j+1)
			if utf8.ValidString(p) {
				echo(id, fmt.Sprintf("UTF-8 %x", p), p, once(text(p)))
			} else {
				l.add(id, fmt.Sprintf("not UTF-8 %x", p), Case{Steps: once(text(p)), End: notUTF8})
			}
		}
	}
}

// failFast are cases 6.4: text is refused at the byte that makes it no UTF-8, and not
// when the message is complete.
func (l *list) failFast() {
	const bad = kosme + "\xf4\x90\x80\x80edited"
	const at = len(kosme)
	for i, c := range []struct {
		about        string
		cut1, cut2   int
		oneFrameOnly bool
	}{
		{"the second of three fragments", at, at + 4, false},
		{"the second of three fragments, of one byte", at + 1, at + 2, false},
		{"the second of three parts of a frame", at, at + 4, true},
		{"the second of three parts of a frame, of one byte", at + 1, at + 2, true},
	} {
		parts := []string{bad[:c.cut1], bad[c.cut1:c.cut2], bad[c.cut2:]}
		steps := []Step{{Frames: []Frame{first(parts[0])}}, {Quiet: true}, {Frames: []Frame{middle(parts[1])}}, {FailFast: true}, {Frames: []Frame{last(parts[2])}}}
		if c.oneFrameOnly {
			f := text(bad)
			whole := f.append(nil)
			header := len(whole) - len(bad)
			steps = []Step{{Raw: whole[:header+c.cut1]}, {Quiet: true}, {Raw: whole[header+c.cut1 : header+c.cut2]}, {FailFast: true}, {Raw: whole[header+c.cut2:]}}
		}
		l.add(fmt.Sprint("6.4.", i+1), c.about+" makes text no UTF-8", Case{Steps: steps, End: notUTF8})
	}
}

// stress returns the strings of cases 6.5 to 6.23.
func stress() [][]string {
	var prefixes []string
	for i := range kosme {
		_, size := utf8.DecodeRuneInString(kosme[i:])
		for j := range size {
			prefixes = append(prefixes, kosme[:i+j+1])
		}
	}
	run := func(from, to int, between string) string { // up to, and without, to
		var b strings.Builder
		for c := from; c < to; c++ {
			b.WriteByte(byte(c))
			b.WriteString(between)
		}
		return b.String()
	}
	missing := []string{
		"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80",
		"\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf",
	}
	noncharacters := []string{"\xef\xbf\xbe", "\xef\xbf\xbf"}
	for plane := rune(1); plane <= 16; plane++ {
		noncharacters = append(noncharacters, string(plane<<16|0xfffe), string(plane<<16|0xffff))
	}
	return [][]string{
		{"hello$world", "hello\u00a2world", "hello\u20acworld", "hello\U00024b62world", kosme},
		prefixes,
		{"\x00", "\u0080", "\u0800", "\U00010000"}, // the first of each length
		{"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80"},
		{"\x7f", "\u07ff", "\uffff", "\U0010ffff"}, // the last of each length
		{"\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf"},
		{"\ud7ff", "\ue000", "\ufffd", "\U0010ffff", "\xf4\x90\x80\x80"},
		{ // continuations of nothing
			"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf", "\x80\xbf\x80\xbf\x80", "\x80\xbf\x80\xbf\x80\xbf",
			run(0x80, 0xbf, ""),
		},
		{run(0xc0, 0xdf, " "), run(0xe0, 0xef, " "), run(0xf0, 0xf7, " "), run(0xf8, 0xfb, " "), run(0xfc, 0xfd, " ")}, // beginnings alone
		missing,
		{strings.Join(missing, "")},
		{"\xfe", "\xff", "\xfe\xfe\xff\xff"},
		{"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf"}, // a slash, too long
		{"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf"},
		{"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80"},
		{"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf"}, // surrogates
		{ // and in pairs
			"\xed\xa0\x80\xed\xb0\x80", "\xed\xa0\x80\xed\xbf\xbf", "\xed\xad\xbf\xed\xb0\x80", "\xed\xad\xbf\xed\xbf\xbf",
			"\xed\xae\x80\xed\xb0\x80", "\xed\xae\x80\xed\xbf\xbf", "\xed\xaf\xbf\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf",
		},
		noncharacters,
		{"\ufff9", "\ufffa", "\ufffb", "\ufffc", "\ufffd", "\ufffe", "\uffff"},
	}
}
