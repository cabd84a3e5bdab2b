package transporttest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// Knock is how a client of the script comes in.
type Knock struct {
	Hub engine.HubName
	// Identity is proven by a token that stands for it, and not sent.
	Identity engine.Identity `json:"-"`
	// Subprotocol is the one to offer; empty for a raw client, for whom the other
	// fields count.
	Subprotocol string
	Raw         subprotocol.RawMode
	Group       engine.GroupName
	NoEcho      bool
	// Recover is the connection that the client wants back, with the token that
	// it began with and no other credential; empty for a new one. A door that has
	// let such a client in may close it at once ([transport.ReasonNotRecovered]).
	Recover           engine.ConnID
	ReconnectionToken string
}

// Client is the far end of a connection that has been let in. Its methods are
// called by one goroutine. They give up after a time of their own choosing, so
// that a test fails rather than hangs.
type Client interface {
	// Send sends one message.
	Send(f subprotocol.Frame, p []byte) error
	// Receive waits for the next message. When the server has said goodbye it
	// returns a [*Closed], and keeps doing so.
	Receive() (subprotocol.Frame, []byte, error)
	// Close says goodbye and waits for the server's answer, which it returns.
	Close(code engine.CloseCode, text string) (*Closed, error)
	// Drop cuts the connection without a word.
	Drop()
}

// Closed is the server's goodbye.
type Closed struct {
	Code engine.CloseCode
	Text string
}

// Error returns the code and the text.
func (c *Closed) Error() string { return fmt.Sprintf("closed by the server: %d %q", c.Code, c.Text) }

// Door lets clients in: it serves an engine until the test ends. Dial fails the
// test if the client is not let in. What the network between them holds should be
// well below a megabyte, so that the script can fill it.
type Door func(t testing.TB, e *engine.Engine, auth transport.Authenticator) (dial func(Knock) Client)

// Run plays every conversation of the script as a subtest, in each subprotocol that
// it can be held in. stage runs one of them and is the place for a bubble:
//
//	transporttest.Run(t, door, synctest.Test)
//
// A nil stage just runs it.
func Run(t *testing.T, door Door, stage func(*testing.T, func(*testing.T))) {
	if stage == nil {
		stage = func(t *testing.T, f func(*testing.T)) { f(t) }
	}
	for i, g := range tongues {
		t.Run(g.name, func(t *testing.T) {
			for _, s := range script {
				if !s.in.speaks(i) {
					continue
				}
				t.Run(s.name, func(t *testing.T) {
					stage(t, func(t *testing.T) {
						p := &play{T: t, door: door, tongue: g}
						s.story(p)
						p.finish()
					})
				})
			}
		})
	}
}

// tellers are the subprotocols that a story is told in.
type tellers int

const (
	every    tellers = iota
	reliable         // those with sequence ids and recovery
	plain            // the others
	two              // a plain and a reliable one: the story is long
	once             // the first: the story is not about subprotocols
	written          // those of JSON
)

// speaks reports whether the i-th tongue is among them.
func (t tellers) speaks(i int) bool {
	switch t {
	case reliable, plain:
		return tongues[i].reliable == (t == reliable)
	case two:
		return i == 0 || i == len(tongues)-1
	case once:
		return i == 0
	case written:
		return strings.HasPrefix(tongues[i].name, "json.")
	}
	return true
}

var script = []struct {
	name  string
	in    tellers
	story func(*play)
}{
	{"the first message says who the client is", every, first},
	{"a joined group is heard, and left no more", every, joinLeave},
	{"a request is acknowledged once", every, acks},
	{"what is forbidden is refused and can be granted", every, forbidden},
	{"noEcho leaves out one connection, not its user", every, noEcho},
	{"a reply precedes its acknowledgement", every, events},
	{"an event that fails is acknowledged as failed", every, failedEvent},
	{"events wait for each other and reading pauses", every, pause},
	{"disconnected is the last event of a client", every, lastEvent},
	{"a malformed message ends the connection", every, malformed},
	{"the protocol's ping is answered", every, ping},
	{"the server's goodbye", every, serverCloses},
	{"the client's goodbye", every, clientCloses},
	{"a cut connection is noticed", plain, dropped},
	{"a message of the largest size passes, a larger one does not", every, sizes},
	{"raw clients raise events", once, rawEvents},
	{"a raw client whose event fails is closed", once, rawFailedEvent},
	{"raw clients publish to their group", once, rawGroup},
	{"all data types reach all kinds of client", every, dataTypes},
	{"data of a type that clients cannot send is refused without ending the connection", written, unsendable},
	{"a slow reader misses nothing while it is within its bounds", two, slowReader},
	{"a reader that stops is ended, and holds nobody up", two, stoppedReader},

	{"a lost wire loses nothing", reliable, recovered},
	{"what a connection is stays with it over wires", reliable, kept},
	{"the newest wire counts", reliable, replaced},
	{"a wire that is closed but not said goodbye on can be replaced", reliable, awayForAWhile},
	{"a connection goes to nobody but its client", reliable, strangers},
	{"an ended connection cannot be had back", reliable, notRecovered},
	{"a client that stays away is forgotten", reliable, forgotten},
	{"an acknowledgement counts for all before it", reliable, sequenceAcks},
	{"what is not acknowledged is bounded", reliable, unacknowledged},
	{"a connection that is not reliable is not recovered", plain, notReliable},

	{"an invocation is answered once", every, invocations},
	{"an invocation can be cancelled", every, cancelled},
	{"invocations wait for each other and reading pauses", once, manyInvocations},
	{"an invocation belongs to its wire", reliable, invocationOnALostWire},
	{"a stream arrives in order and as a whole", every, stream},
	{"a stream has its rules", every, streamRules},
	{"a group's state is told and followed", every, groupState},
}

// play is one story's stage.
type play struct {
	*testing.T
	door    Door
	tongue  tongue
	options engine.Options
	handler engine.HandlerFuncs

	engine *engine.Engine
	dial   func(Knock) Client

	mu     sync.Mutex
	events []string // what handlers were told
	told   chan struct{}
	raws   int

	clients []Client // all that were let in
}

func (p *play) open() {
	if p.engine != nil {
		return
	}
	if p.handler.OnDisconnected == nil {
		p.handler.OnDisconnected = func(_ context.Context, e *engine.DisconnectedEvent) {
			p.note("disconnected " + string(e.UserID) + ": " + e.Reason)
		}
	}
	p.handler.OnConnected = func(_ context.Context, e *engine.ConnectedEvent) { p.note("connected " + string(e.UserID)) }
	rule := engine.HandlerRule{SystemEvents: []string{"connect", "connected", "disconnected"}, Handler: &p.handler}
	if p.handler.OnUserEvent != nil {
		rule.UserEvents = "*"
	}
	hub := &engine.HubOptions{Handlers: []engine.HandlerRule{rule}}
	p.options.Hubs = func(engine.HubName) *engine.HubOptions { return hub }
	e, err := engine.New(&p.options)
	p.must(err)
	p.engine = e
	p.Cleanup(func() { e.Close() })
	guests := &Guests{}
	dial := p.door(p, e, guests)
	p.dial = func(k Knock) Client {
		c := dial(k)
		p.clients = append(p.clients, c)
		return c
	}
}

// finish ends the story and checks that nothing is left behind.
func (p *play) finish() {
	for _, c := range p.clients {
		c.Drop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.engine.Shutdown(ctx); err != nil {
		p.Errorf("shutdown: %v", err)
	}
	s := p.engine.Stats()
	if s.Connections != 0 || s.Groups != 0 || s.Memberships != 0 || s.QueuedBytes != 0 || s.QueuedMessages != 0 || s.PendingEventBytes != 0 {
		p.Errorf("counters after the end: %+v", s)
	}
}

func (p *play) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// note records what a handler was told.
func (p *play) note(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, s)
	if p.told != nil {
		close(p.told)
		p.told = nil
	}
}

// await waits until the handlers have been told all of want, in any order.
func (p *play) await(want ...string) {
	p.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		have := append([]string(nil), p.events...)
		told := make(chan struct{})
		if p.told == nil {
			p.told = told
		} else {
			told = p.told
		}
		p.mu.Unlock()
		missing := ""
		for _, w := range want {
			if !contains(have, w) {
				missing = w
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-told:
		case <-deadline:
			p.Fatalf("the handler was told %q; still missing %q", have, missing)
		}
	}
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

// patience is how long a story waits for what must come.
const patience = time.Minute

const hub = engine.HubName("stage")

// client lets a client in and reads its first message.
func (p *play) client(user string, roles ...string) *actor {
	p.Helper()
	p.open()
	a := &actor{p: p, Client: p.dial(Knock{
		Hub: hub, Identity: engine.Identity{UserID: engine.UserID(user), Roles: roles}, Subprotocol: p.tongue.name,
	})}
	a.hello()
	return a
}

// recover has a's client ask for its connection, on a new wire, and reads the first
// message. What a has not confirmed comes again.
func (p *play) recover(a *actor) *actor {
	p.Helper()
	b := &actor{p: p, seq: a.confirmed, confirmed: a.confirmed, Client: p.ask(a.id, a.token)}
	b.hello()
	if b.id != a.id {
		p.Fatalf("asked for connection %s, and got %s", a.id, b.id)
	}
	return b
}

// ask has a client ask for a connection.
func (p *play) ask(id engine.ConnID, token string) Client {
	p.Helper()
	return p.dial(Knock{Hub: hub, Subprotocol: p.tongue.name, Recover: id, ReconnectionToken: token})
}

// refused has a client ask for a connection that it is not to get.
func (p *play) refused(id engine.ConnID, token string) {
	p.Helper()
	(&actor{p: p, Client: p.ask(id, token)}).closed(engine.ClosePolicy, transport.ReasonNotRecovered)
}

// full lets a client with every role in.
func (p *play) full(user string) *actor {
	p.Helper()
	return p.client(user, "webpubsub.joinLeaveGroup", "webpubsub.sendToGroup")
}

// raw lets a raw client in. Nothing tells it that it is in, so this waits for the
// event.
func (p *play) raw(k Knock) *actor {
	p.Helper()
	p.open()
	k.Hub = hub
	p.raws++
	k.Identity.UserID = engine.UserID(fmt.Sprintf("rob %d", p.raws))
	a := &actor{p: p, Client: p.dial(k)}
	p.await("connected " + string(k.Identity.UserID))
	return a
}

func (p *play) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	p.Cleanup(cancel)
	return ctx
}

func text(s string) engine.Payload { return engine.Payload{Type: engine.Text, Data: []byte(s)} }
