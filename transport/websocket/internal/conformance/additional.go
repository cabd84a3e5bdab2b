package conformance

// Additional returns cases that Autobahn's suite lacks.
func Additional() []Case {
	var l list
	l.framing()
	l.deflate()
	return l
}

// framing are cases F.1: frames that Autobahn's client never sends.
func (l *list) framing() {
	unmasked := func(f Frame) Frame { f.Unmasked = true; return f }
	l.add("F.1.1", "a message that is not masked", Case{Steps: once(unmasked(text(hello))), End: byServer})
	l.add("F.1.2", "text, then text that is not masked, then a ping", brokenAfter(unmasked(text(hello)), once))
	l.add("F.1.3", "a ping that is not masked", Case{Steps: once(unmasked(ping(hello))), End: byServer})
	l.add("F.1.4", "a length of 5 in two bytes", Case{Steps: once(Frame{Op: opText, Payload: []byte("Hello"), Form: 2}), End: byServer})
	l.add("F.1.5", "a length of 5 in eight bytes", Case{Steps: once(Frame{Op: opText, Payload: []byte("Hello"), Form: 8}), End: byServer})
	l.add("F.1.6", "a length of 2^63", Case{Steps: once(Frame{Op: opText, Length: -1 << 63, Form: 8}), End: byServer})
	l.add("F.1.7", "a close frame in two fragments", Case{Steps: once(Frame{Op: opClose, More: true, Payload: []byte{3, 232}}, last("")), End: End{ByClient: true, Codes: []int{codeProtocol}}})
	// Case 3.7 has no status, so its answer does not show whether it was understood.
	said := status(codeNormal, "")
	said.RSV = 7
	l.add("F.1.8", "a close frame with a status and reserved bits 7", Case{Steps: once(said), End: byServer})
}

// deflate are cases F.2: forms of compressed messages.
func (l *list) deflate() {
	const plain = "permessage-deflate"
	packed := func(p string) Frame { return Frame{Op: opText, RSV: 4, Payload: []byte(p)} }
	hasHello := Case{Offer: plain, Want: texts("Hello"), End: byClient}
	for i, c := range []struct{ about, payload string }{
		{"a compressed message (RFC 7692, 7.2.3.1)", "\xf2\x48\xcd\xc9\xc9\x07\x00"},
		{"a message in a stored block (7.2.3.3)", "\x00\x05\x00\xfa\xffHello\x00"},
		{"a message in a block that says it is the last (7.2.3.4)", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"},
		{"a message in two blocks (7.2.3.5)", "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"},
		{"a message in two blocks, the first of which says it is the last", "\xf3\x48\xcd\x01\x00\xca\xc9\x07\x00"},
	} {
		hasHello.Steps = once(packed(c.payload))
		l.add("F.2."+string(rune('1'+i)), c.about, hasHello)
	}
	refused := func(id, about string, end End, f ...Frame) {
		l.add(id, about, Case{Offer: plain, Steps: once(f...), End: end})
	}
	refused("F.2.6", "junk behind a block that says it is the last", notUTF8, packed("\xf3\x48\xcd\xc9\xc9\x07\x00\xff\xff"))
	refused("F.2.7", "a message that does not decompress", notUTF8, packed("\xff\xff\xff"))
	refused("F.2.8", "compressed text that is not UTF-8", notUTF8, packed("\x00\x01\x00\xfe\xff\xff\x00"))
	refused("F.2.9", "a continuation that says it is compressed", byServer, first("Hello"), Frame{Op: opContinuation, RSV: 4})
	refused("F.2.10", "a ping that says it is compressed", byServer, Frame{Op: opPing, RSV: 4})
	l.add("F.2.11", "a compressed message where that was not agreed", Case{Steps: once(packed("\xf2\x48\xcd\xc9\xc9\x07\x00")), End: byServer})
	l.add("F.2.12", "compressed text in two fragments, with a ping between them", Case{
		Offer: plain, End: byClient, Want: append(pongs("asked"), texts("Hello")...),
		Steps: once(Frame{Op: opText, RSV: 4, More: true, Payload: []byte("\xf2\x48\xcd")}, ping("asked"), last("\xc9\xc9\x07\x00")),
	})
	l.add("F.2.13", "a message that refers to the one before (7.2.3.2)", Case{
		Offer: plain, Want: texts("Hello", "Hello"), End: byClient,
		Steps: once(packed("\xf2\x48\xcd\xc9\xc9\x07\x00"), packed("\xf2\x00\x11\x00\x00")),
	})
	l.add("F.2.14", "a reference over a message that is not compressed", Case{
		Offer: plain, Want: texts("Hello", "plain", "Hello"), End: byClient,
		Steps: once(packed("\xf2\x48\xcd\xc9\xc9\x07\x00"), text("plain"), packed("\xf2\x00\x11\x00\x00")),
	})
	refused("F.2.15", "a reference to before the first message", notUTF8, packed("\xf2\x00\x11\x00\x00"))
	l.add("F.2.16", "an empty compressed message (7.2.3.6)", Case{Offer: plain, Steps: once(packed("\x00")), Want: texts(""), End: byClient})
	l.add("F.2.17", "messages that refer to those before, of a client with no other", Case{
		Offer:  plain + "; client_max_window_bits",
		Rounds: &Rounds{Count: 50, Data: datasets[0], Size: 3000}, End: byClient,
	})
	l.add("F.2.18", "a window of 256 bytes", Case{
		Offer:  plain + "; client_no_context_takeover; server_max_window_bits=8",
		Rounds: &Rounds{Count: 50, Data: datasets[0], Size: 3000}, End: byClient,
	})
}
