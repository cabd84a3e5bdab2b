package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"sync"
)

// kept is how many texts the outbox remembers.
const kept = 1000

// text is one text to one telephone, and who had it sent.
type text struct{ caller, from, to, message string }

// outbox stands in for a carrier: it prints texts, and remembers the last ones.
// It is safe for concurrent use.
type outbox struct {
	out io.Writer

	mu   sync.Mutex // guards the rest
	sent []sent     // oldest first
	byID map[requestID]string
}

// requestID names one text of one caller: callers choose theirs, and must not meet
// each other's.
type requestID struct{ caller, id, to string }

type sent struct {
	text
	request requestID
}

func newOutbox(out io.Writer) *outbox { return &outbox{out: out, byID: make(map[requestID]string)} }

// send sends a text and returns its id. A request that the outbox remembers is not
// carried out again; one without an id always is.
func (o *outbox) send(t text, request string) (id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := requestID{t.caller, request, t.to}
	if id, again := o.byID[key]; again && request != "" {
		return id
	}
	if len(o.sent) == kept {
		delete(o.byID, o.sent[0].request)
		o.sent = append(o.sent[:0], o.sent[1:]...)
	}
	id = rand.Text()
	o.sent = append(o.sent, sent{t, key})
	o.byID[key] = id
	fmt.Fprintf(o.out, "text from %q to %s for %q: %q\n", t.from, t.to, t.caller, t.message)
	return id
}
