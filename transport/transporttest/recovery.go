package transporttest

import (
	"fmt"
	"strings"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
)

// from is a message that bo has published to group g.
const from = `{"type":"message","from":"group","group":"g","fromUserId":"bo","dataType":"text","data":"%s"}`

// tells publishes each of texts to group g.
func (a *actor) tells(id int, texts ...string) {
	a.p.Helper()
	for i, t := range texts {
		a.asks(fmt.Sprint(id+i), `{"type":"sendToGroup","group":"g","dataType":"text","data":"`+t+`"}`, "")
	}
}

// told receives texts from group g, in order.
func (a *actor) told(texts ...string) {
	a.p.Helper()
	for _, t := range texts {
		a.hears(fmt.Sprintf(from, t))
	}
}

func recovered(p *play) {
	ann, bo := p.full("ann"), p.full("bo")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	bo.tells(1, "one", "two")
	ann.told("one", "two")
	ann.confirms(1)
	ann.Drop()
	bo.tells(3, "three", "four", "five")
	ann = p.recover(ann)
	bo.tells(6, "six")
	ann.told("two", "three", "four", "five", "six") // what is not acknowledged comes again, ahead of what is new
	ann.confirms(6)
	ann.Drop()
	ann = p.recover(ann)
	ann.pings() // nothing comes again
	bo.tells(7, "seven")
	ann.told("seven")
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.events); n > 2 {
		p.Fatalf("the handler was told %q", p.events)
	}
}

func kept(p *play) {
	ann := p.client("ann", "webpubsub.joinLeaveGroup.g")
	ann.asks("7", `{"type":"joinGroup","group":"g"}`, "")
	ann.asks("8", `{"type":"sendToGroup","group":"g","data":1}`, "Forbidden")
	ann.Drop()
	h := p.engine.Hub(hub)
	p.must(h.Grant(p.ctx(), ann.id, engine.SendToGroup, "g"))
	if ok, err := h.ConnExists(p.ctx(), ann.id); !ok || err != nil {
		p.Fatalf("the connection exists: %v, %v", ok, err)
	}
	ann = p.recover(ann)
	ann.asks("7", `{"type":"leaveGroup","group":"g"}`, "Duplicate")
	ann.say(`{"type":"sendToGroup","group":"g","ackId":8,"dataType":"text","data":"still here"}`)
	ann.hears(`{"type":"message","from":"group","group":"g","fromUserId":"ann","dataType":"text","data":"still here"}`)
	ann.acked("8", "")
}

func replaced(p *play) {
	ann, bo := p.full("ann"), p.full("bo")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	bo.tells(1, "one")
	ann.told("one")
	again := p.recover(ann) // while the first wire is there
	if _, message, err := ann.Receive(); err == nil {
		p.Fatalf("the older wire received %q", message)
	}
	again.told("one")
	bo.tells(2, "two")
	again.told("two")
	ann.Drop()
	again.pings()
}

func awayForAWhile(p *play) {
	ann, bo := p.full("ann"), p.full("bo")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	c, err := ann.Close(engine.CloseGoingAway, "")
	if err != nil || c.Code != engine.CloseGoingAway {
		p.Fatalf("the answer to a goodbye: %v, %v", c, err)
	}
	bo.tells(1, "one")
	ann = p.recover(ann)
	ann.told("one")
}

func strangers(p *play) {
	ann, bo := p.full("ann"), p.full("bo")
	for _, token := range []string{"", bo.token, "A" + ann.token, strings.Repeat("A", 4096)} {
		p.refused(ann.id, token)
	}
	p.refused("nobody", ann.token)
	p.refused(engine.ConnID(strings.Repeat("x", 4096)), ann.token)
	c := p.dial(Knock{Hub: "another", Subprotocol: p.tongue.name, Recover: ann.id, ReconnectionToken: ann.token})
	(&actor{p: p, Client: c}).closed(engine.ClosePolicy, transport.ReasonNotRecovered)
	ann.pings() // it has taken no harm
	ann.Drop()
	p.refused(ann.id, bo.token)
	p.recover(ann).pings()
}

func notRecovered(p *play) {
	ann, bo, cy := p.full("ann"), p.full("bo"), p.full("cy")
	_, err := ann.Close(engine.CloseNormal, "")
	p.must(err)
	p.refused(ann.id, ann.token)

	p.must(p.engine.Hub(hub).CloseConn(p.ctx(), bo.id, ""))
	bo.hears(`{"type":"system","event":"disconnected","message":"Application server closed the connection."}`)
	bo.closed(engine.CloseNormal, "")
	p.refused(bo.id, bo.token)

	cy.Drop()
	p.must(p.engine.Hub(hub).CloseConn(p.ctx(), cy.id, "")) // whether or not it is known to be gone
	p.refused(cy.id, cy.token)
}

func forgotten(p *play) {
	clock := NewClock()
	p.options.Clock = clock
	gone := make(chan struct{})
	p.options.Observer.ConnEnded = func(engine.HubName, engine.CloseCode, engine.EndReason) { close(gone) }
	ann := p.client("ann")
	ann.Drop()
	took, ok := clock.Until(gone, 250*time.Millisecond, 10*time.Minute)
	if !ok || took < 30*time.Second {
		p.Errorf("the client was forgotten after %s: %v", took, ok)
	}
	p.refused(ann.id, ann.token)
}

func sequenceAcks(p *play) {
	p.options.Limits.OutboundMessages = 10
	ann, bo := p.full("ann"), p.full("bo")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	next := 1
	says := func(n int) {
		for range n {
			bo.tells(next, fmt.Sprint(next))
			ann.told(fmt.Sprint(next))
			next++
		}
	}
	says(8)
	ann.confirms(6) // cumulative: it counts for six
	says(8)
	ann.say(`{"type":"sequenceAck","sequenceId":18446744073709551615}`) // as good as the last
	ann.pings()
	says(10)
	ann.confirms(3) // it takes nothing back
	ann.confirmed = 16
	ann.Drop()
	ann = p.recover(ann)
	for i := 17; i < next; i++ {
		ann.told(fmt.Sprint(i))
	}
}

func unacknowledged(p *play) {
	p.options.Limits.OutboundMessages = 10
	over := make(chan engine.EndReason, 3) // ann's end, twice, and bo's
	p.options.Observer.ConnEnded = func(_ engine.HubName, _ engine.CloseCode, r engine.EndReason) { over <- r }
	ann, bo := p.full("ann"), p.full("bo")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	for i := range 10 {
		bo.tells(i, fmt.Sprint(i))
		ann.told(fmt.Sprint(i))
	}
	bo.tells(10, "one too many")
	if r := <-over; r != engine.EndSlow {
		p.Fatalf("the connection ended for %s", r)
	}
	p.refused(ann.id, ann.token)

	ann = p.full("ann") // and likewise while it is away
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	ann.Drop()
	for i := range 11 {
		bo.tells(20+i, fmt.Sprint(i))
	}
	if r := <-over; r != engine.EndSlow {
		p.Fatalf("the connection ended for %s", r)
	}
	p.refused(ann.id, ann.token)
}

func notReliable(p *play) {
	ann := p.full("ann")
	p.refused(ann.id, "")
	p.refused(ann.id, "AAAAAAAAAAAAAAAAAAAAAA")
	ann.pings()
	ann.Drop()
	p.await("disconnected ann: ")
}
