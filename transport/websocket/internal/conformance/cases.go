package conformance

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// What cases expect of the end.
var (
	byClient    = End{ByClient: true, Codes: []int{codeNormal}, Clean: true}
	byServer    = End{Codes: []int{codeProtocol}}
	notUTF8     = End{Codes: []int{codeInvalidData}}
	afterBroken = End{ByClient: true, Codes: []int{codeProtocol}} // a close frame that is itself broken
)

func text(p string) Frame    { return Frame{Op: opText, Payload: []byte(p)} }
func binaryF(p string) Frame { return Frame{Op: opBinary, Payload: []byte(p)} }
func ping(p string) Frame    { return Frame{Op: opPing, Payload: []byte(p)} }
func pong(p string) Frame    { return Frame{Op: opPong, Payload: []byte(p)} }

// first, middle and last are fragments of a message.
func first(p string) Frame  { return Frame{Op: opText, More: true, Payload: []byte(p)} }
func middle(p string) Frame { return Frame{Op: opContinuation, More: true, Payload: []byte(p)} }
func last(p string) Frame   { return Frame{Op: opContinuation, Payload: []byte(p)} }

// status is a close frame.
func status(code int, reason string) Frame {
	return Frame{Op: opClose, Payload: append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)}
}

func once(f ...Frame) []Step  { return []Step{{Frames: f}} }
func apart(f ...Frame) []Step { return []Step{{Frames: f, Apart: true}} }
func chopped(size int, f ...Frame) []Step {
	return []Step{{Frames: f, Chop: size}}
}

func texts(p ...string) (events []Event) {
	for _, p := range p {
		events = append(events, Event{Text, []byte(p)})
	}
	return events
}

func pongs(p ...string) (events []Event) {
	for _, p := range p {
		events = append(events, Event{Pong, []byte(p)})
	}
	return events
}

// fragments cuts a message into frames of so many bytes.
func fragments(op byte, p string, size int) (f []Frame) {
	for more := true; more; op = opContinuation {
		n := min(size, len(p))
		more = n < len(p)
		f = append(f, Frame{Op: op, More: more, Payload: []byte(p[:n])})
		p = p[n:]
	}
	return f
}

// list collects cases.
type list []Case

// add adds a case of which id and about are formatted with args, in this order: the
// numbers of id, and then the rest.
func (l *list) add(id, about string, c Case) {
	c.ID, c.About = id, about
	*l = append(*l, c)
}

// Autobahn returns the cases that Autobahn's suite counts for servers, in its order.
func Autobahn() []Case {
	var l list
	l.messages()
	l.pings()
	l.reservedBits()
	l.opcodes()
	l.fragmentation()
	l.utf8()
	l.closing()
	l.limits()
	l.compression()
	return l
}

// messages are cases 1: messages of each form of length.
func (l *list) messages() {
	const chop = 997
	for kind, f := range []func(string) Frame{text, binaryF} {
		char, event := "*", Text
		if kind == 1 {
			char, event = "\xfe", Binary
		}
		for i, size := range []int{0, 125, 126, 127, 128, 65535, 65536, 65536} {
			p := strings.Repeat(char, size)
			steps, how := once(f(p)), ""
			if i == 7 {
				steps, how = chopped(chop, f(p)), fmt.Sprintf(", in pieces of %d bytes", chop)
			}
			l.add(fmt.Sprintf("1.%d.%d", kind+1, i+1), fmt.Sprintf("a %s message of %d bytes%s", event, size, how),
				Case{Steps: steps, Want: []Event{{event, []byte(p)}}, End: byClient})
		}
	}
}

// pings are cases 2.
func (l *list) pings() {
	long := strings.Repeat("\xfe", 125)
	l.add("2.1", "a ping without a payload", Case{Steps: once(ping("")), Want: pongs(""), End: byClient})
	l.add("2.2", "a ping with text", Case{Steps: once(ping("Hello, world!")), Want: pongs("Hello, world!"), End: byClient})
	l.add("2.3", "a ping that is not UTF-8", Case{Steps: once(ping("\x00\xff\xfe\xfd\xfc\xfb\x00\xff")), Want: pongs("\x00\xff\xfe\xfd\xfc\xfb\x00\xff"), End: byClient})
	l.add("2.4", "a ping of 125 bytes", Case{Steps: once(ping(long)), Want: pongs(long), End: byClient})
	l.add("2.5", "a ping of 126 bytes", Case{Steps: once(ping(long + "\xfe")), End: byServer})
	l.add("2.6", "a ping of 125 bytes, byte by byte", Case{Steps: chopped(1, ping(long)), Want: pongs(long), End: byClient})
	l.add("2.7", "a pong that was not asked for", Case{Steps: once(pong(""), status(codeNormal, "")), End: byClient})
	l.add("2.8", "a pong with a payload that was not asked for", Case{Steps: once(pong("unsolicited"), status(codeNormal, "")), End: byClient})
	l.add("2.9", "a pong that was not asked for, and a ping", Case{Steps: once(pong("unsolicited"), ping("asked")), Want: pongs("asked"), End: byClient})
	var ten []Frame
	var answers []string
	for i := range 10 {
		answers = append(answers, fmt.Sprint("payload-", i))
		ten = append(ten, ping(answers[i]))
	}
	l.add("2.10", "ten pings", Case{Steps: once(ten...), Want: pongs(answers...), End: byClient})
	l.add("2.11", "ten pings, byte by byte", Case{Steps: chopped(1, ten...), Want: pongs(answers...), End: byClient})
}

const hello = "Hello, world!"

// brokenAfter is a message, then a frame that breaks the rules, then a ping: the first is
// answered, and nothing else is.
func brokenAfter(f Frame, send func(...Frame) []Step) Case {
	return Case{Steps: send(text(hello), f, ping("")), Want: texts(hello), Less: []Event{}, End: byServer}
}

func bytewise(f ...Frame) []Step { return chopped(1, f...) }

// reservedBits are cases 3.
func (l *list) reservedBits() {
	with := func(rsv byte, f Frame) Frame { f.RSV = rsv; return f }
	l.add("3.1", "text with reserved bits 1", Case{Steps: once(with(1, text(hello))), End: byServer})
	l.add("3.2", "text, then text with reserved bits 2, then a ping", brokenAfter(with(2, text(hello)), once))
	l.add("3.3", "text, then text with reserved bits 3, then a ping; one write each", brokenAfter(with(3, text(hello)), apart))
	l.add("3.4", "text, then text with reserved bits 4, then a ping; byte by byte", brokenAfter(with(4, text(hello)), bytewise))
	l.add("3.5", "a binary message with reserved bits 5", Case{Steps: once(with(5, binaryF("\x00\xff\xfe\xfd\xfc\xfb\x00\xff"))), End: byServer})
	l.add("3.6", "a binary message with reserved bits 6", Case{Steps: once(with(6, binaryF(hello))), End: byServer})
	l.add("3.7", "a close frame with reserved bits 7", Case{Steps: once(with(7, Frame{Op: opClose})), End: byServer})
}

// opcodes are cases 4.
func (l *list) opcodes() {
	for kind, base := range []byte{3, 11} {
		for i := range byte(5) {
			op := base + i
			f := Frame{Op: op}
			if i != 0 && i != 2 {
				f.Payload = []byte("reserved opcode payload")
			}
			c := Case{Steps: once(f), End: byServer}
			switch {
			case i == 4:
				c = brokenAfter(f, bytewise)
			case i >= 2:
				c = brokenAfter(f, once)
			}
			about := fmt.Sprintf("a frame with the reserved opcode %d", op)
			if i >= 2 {
				about = "text, then " + about + ", then a ping"
			}
			l.add(fmt.Sprintf("4.%d.%d", kind+1, i+1), about, c)
		}
	}
}

// fragmentation are cases 5.
func (l *list) fragmentation() {
	ways := []struct {
		how  string
		send func(...Frame) []Step
	}{{"at once", once}, {"one write each", apart}, {"byte by byte", bytewise}}
	l.add("5.1", "a ping in two fragments", Case{Steps: once(Frame{Op: opPing, More: true, Payload: []byte("fragment1")}, last("fragment2")), End: byServer})
	l.add("5.2", "a pong in two fragments", Case{Steps: once(Frame{Op: opPong, More: true, Payload: []byte("fragment1")}, last("fragment2")), End: byServer})
	for i, w := range ways {
		l.add(fmt.Sprint("5.", 3+i), "text in two fragments, "+w.how,
			Case{Steps: w.send(first("fragment1"), last("fragment2")), Want: texts("fragment1fragment2"), End: byClient})
	}
	for i, w := range ways {
		l.add(fmt.Sprint("5.", 6+i), "text in two fragments with a ping between them, "+w.how,
			Case{
				Steps: w.send(first("fragment1"), ping("ping payload"), last("fragment2")),
				Want:  append(pongs("ping payload"), texts("fragment1fragment2")...), End: byClient,
			})
	}
	for i, w := range ways {
		l.add(fmt.Sprint("5.", 9+i), "the last fragment of nothing, then text, "+w.how,
			Case{Steps: w.send(last("non-continuation payload"), text(hello)), End: byServer})
	}
	for i, w := range ways {
		l.add(fmt.Sprint("5.", 12+i), "a fragment of nothing, then text, "+w.how,
			Case{Steps: w.send(middle("non-continuation payload"), text(hello)), End: byServer})
	}
	l.add("5.15", "text in two fragments, then a fragment of nothing, then text", Case{
		Steps: once(first("fragment1"), last("fragment2"), middle("fragment3"), text("fragment4")),
		Want:  texts("fragment1fragment2"), Less: []Event{}, End: byServer,
	})
	l.add("5.16", "twice a fragment of nothing, then text in two fragments", Case{
		Steps: once(middle("fragment1"), first("fragment2"), last("fragment3"), middle("fragment1"), first("fragment2"), last("fragment3")), End: byServer,
	})
	l.add("5.17", "twice the last fragment of nothing, then text in two fragments", Case{
		Steps: once(last("fragment1"), first("fragment2"), last("fragment3"), last("fragment1"), first("fragment2"), last("fragment3")), End: byServer,
	})
	l.add("5.18", "text in two fragments, both of which say that they are text", Case{Steps: once(first("fragment1"), text("fragment2")), End: byServer})
	for i, send := range []func(...Frame) []Step{once, apart} {
		steps := send(first("fragment1"), middle("fragment2"), ping("pongme 1!"))
		steps = append(steps, Step{Await: 1})
		steps = append(steps, send(middle("fragment3"), middle("fragment4"), ping("pongme 2!"), last("fragment5"))...)
		l.add(fmt.Sprint("5.", 19+i), "text in five fragments; the first ping among them is answered before the rest comes, "+ways[i].how, Case{
			Steps: steps, End: byClient,
			Want: append(pongs("pongme 1!", "pongme 2!"), texts("fragment1fragment2fragment3fragment4fragment5")...),
		})
	}
}

// closing are cases 7.
func (l *list) closing() {
	bye := status(codeNormal, "")
	l.add("7.1.1", "text, then a close frame", Case{Steps: once(text("Hello World!")), Want: texts("Hello World!"), End: byClient})
	l.add("7.1.2", "two close frames", Case{Steps: once(bye, Frame{Op: opClose}), End: byClient})
	l.add("7.1.3", "a ping after the close frame", Case{Steps: once(bye, ping("")), End: byClient})
	l.add("7.1.4", "text after the close frame", Case{Steps: once(bye, text("Hello World!")), End: byClient})
	l.add("7.1.5", "a close frame between fragments", Case{Steps: once(first("fragment1"), bye, last("fragment2")), End: byClient})
	l.add("7.1.6", "256 KiB of text, a short text, a close frame and a ping", Case{
		Steps: once(text(repeated("BAsd7&jh23", 256<<10)), text("Hello World!"), bye, ping("")), Informational: true, End: byClient,
	})

	l.add("7.3.1", "a close frame without a status", Case{Steps: once(Frame{Op: opClose}), End: byClient})
	l.add("7.3.2", "a close frame of one byte", Case{Steps: once(Frame{Op: opClose, Payload: []byte("a")}), End: afterBroken})
	l.add("7.3.3", "a close frame with a status", Case{Steps: once(bye), End: byClient})
	l.add("7.3.4", "a close frame with a reason", Case{Steps: once(status(codeNormal, "Hello World!")), End: byClient})
	l.add("7.3.5", "a close frame with the longest reason", Case{Steps: once(status(codeNormal, strings.Repeat("*", 123))), End: byClient})
	l.add("7.3.6", "a close frame with a reason that is too long", Case{Steps: once(status(codeNormal, strings.Repeat("*", 124))), End: afterBroken})

	l.add("7.5.1", "a close frame with a reason that is not UTF-8", Case{
		Steps: once(status(codeNormal, kosme+"\xed\xa0\x80edited")), End: End{ByClient: true, Codes: []int{codeProtocol, codeInvalidData}},
	})
	for i, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		l.add(fmt.Sprint("7.7.", i+1), fmt.Sprint("a close frame with the status ", code),
			Case{Steps: once(status(code, "")), End: End{ByClient: true, Codes: []int{codeNormal, code}, Clean: true}})
	}
	for i, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		l.add(fmt.Sprint("7.9.", i+1), fmt.Sprint("a close frame with the status ", code, ", which must not be sent"),
			Case{Steps: once(status(code, "")), End: afterBroken})
	}
	for i, code := range []int{5000, 65535} {
		l.add(fmt.Sprint("7.13.", i+1), fmt.Sprint("a close frame with the status ", code),
			Case{Steps: once(status(code, "")), Informational: true, End: End{ByClient: true}})
	}
}

// repeated returns size bytes of p over and over.
func repeated(p string, size int) string { return strings.Repeat(p, size/len(p)+1)[:size] }

// limits are cases 9, and 10.
func (l *list) limits() {
	const k, m = 1 << 10, 1 << 20
	kinds := []struct {
		event     EventKind
		op        byte
		long, one string
	}{{Text, opText, "BAsd7&jh23", "*"}, {Binary, opBinary, "\x00\xfe\x23\xfa\xf0", "\xfe"}}
	for kind, x := range kinds {
		for i, size := range []int{64 * k, 256 * k, m, 4 * m, 8 * m, 16 * m} {
			p := []byte(repeated(x.long, size))
			l.add(fmt.Sprintf("9.%d.%d", 1+kind, i+1), fmt.Sprintf("a %s message of %d bytes", x.event, size),
				Case{Steps: once(Frame{Op: x.op, Payload: p}), Want: []Event{{x.event, p}}, End: byClient})
		}
	}
	for kind, x := range kinds {
		for i, size := range []int{64, 256, k, 4 * k, 16 * k, 64 * k, 256 * k, m, 4 * m} {
			p := strings.Repeat(x.one, 4*m)
			l.add(fmt.Sprintf("9.%d.%d", 3+kind, i+1), fmt.Sprintf("a %s message of %d bytes in fragments of %d", x.event, len(p), size),
				Case{Steps: once(fragments(x.op, p, size)...), Want: []Event{{x.event, []byte(p)}}, End: byClient})
		}
	}
	for kind, x := range kinds {
		for i, size := range []int{64, 128, 256, 512, k, 2 * k} {
			p := []byte(repeated(x.long, m))
			l.add(fmt.Sprintf("9.%d.%d", 5+kind, i+1), fmt.Sprintf("a %s message of %d bytes, in pieces of %d", x.event, len(p), size),
				Case{Steps: chopped(size, Frame{Op: x.op, Payload: p}), Want: []Event{{x.event, p}}, End: byClient})
		}
	}
	for kind, x := range kinds {
		data := &Data{Kind: x.event, pieces: []byte(strings.Repeat(x.one, 8*k))}
		for i, size := range []int{0, 16, 64, 256, k, 4 * k} {
			l.add(fmt.Sprintf("9.%d.%d", 7+kind, i+1), fmt.Sprintf("1000 %s messages of %d bytes, one after the other", x.event, size),
				Case{Rounds: &Rounds{Count: 1000, Data: data, Size: size}, End: byClient})
		}
	}
	p := strings.Repeat("*", 64*k)
	l.add("10.1.1", "a text message of 65536 bytes in fragments of 1300",
		Case{Steps: once(fragments(opText, p, 1300)...), Want: texts(p), End: byClient})
}

// compression are cases 12 and 13.
func (l *list) compression() {
	sizes := []struct{ size, fragment int }{
		{16, 0}, {64, 0}, {256, 0}, {1024, 0}, {4096, 0}, {8192, 0}, {16384, 0}, {32768, 0}, {65536, 0}, {131072, 0},
		{8192, 256}, {16384, 256}, {32768, 256}, {65536, 256}, {131072, 256}, {131072, 1024}, {131072, 4096}, {131072, 32768},
	}
	rounds := func(id string, data *Data, offer, of string) {
		for i, s := range sizes {
			about := fmt.Sprintf("1000 compressed messages of %d characters of %s", s.size, of)
			if s.fragment > 0 {
				about += fmt.Sprintf(", in fragments of %d bytes", s.fragment)
			}
			l.add(fmt.Sprintf("%s.%d", id, i+1), about,
				Case{Offer: offer, Rounds: &Rounds{Count: 1000, Data: data, Size: s.size, Fragment: s.fragment}, End: byClient})
		}
	}
	// What Autobahn's client offers always: that it can do both.
	const offer = "permessage-deflate; client_no_context_takeover; client_max_window_bits"
	for i, d := range datasets {
		rounds(fmt.Sprint("12.", i+1), d, offer, d.Name)
	}
	for i, asks := range []string{
		"",
		"; server_no_context_takeover",
		"; server_max_window_bits=9",
		"; server_max_window_bits=15",
		"; server_no_context_takeover; server_max_window_bits=9",
		"; server_no_context_takeover; server_max_window_bits=15",
		"; server_no_context_takeover; server_max_window_bits=9, " + offer + "; server_no_context_takeover, " + offer,
	} {
		rounds(fmt.Sprint("13.", i+1), datasets[0], offer+asks, datasets[0].Name+", offered as "+offer+asks)
	}
}
