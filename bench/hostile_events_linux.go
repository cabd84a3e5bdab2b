package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/transport/client"
)

// Bounds of the attacks on what events and groups hold.
const (
	eventRounds = 333
	eventTime   = 12 * time.Second
	eventRest   = 10 * time.Second // after which memory is looked at again
	eventSize   = 1_000_000
	eventCount  = 8 // of a round

	eventAttackers = 8 // clients at a time

	nameClients = 100
	nameGroups  = 10_000
	nameTime    = 12 * time.Second
)

// eventHandler is an application server that grants every origin and lets answer do
// the rest.
type eventHandler struct {
	server   *http.Server
	url      string
	listener net.Listener
}

func startEventHandler(answer http.HandlerFunc) (*eventHandler, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h := &eventHandler{listener: l, url: "http://" + l.Addr().String()}
	h.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			w.Header().Set("WebHook-Allowed-Origin", "*")
			return
		}
		answer(w, r)
	})}
	go h.server.Serve(l)
	return h, nil
}

func (h *eventHandler) stop() { h.server.Close() }

// hangs takes an event and never answers.
func hangs(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// unavailable answers every event with 503.
func unavailable(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.WriteHeader(http.StatusServiceUnavailable)
}

// waitingEvents has a client without a token send eight events of 1 MB to a handler
// that is of no use, say goodbye, and begin again.
func waitingEvents(name string, answer http.HandlerFunc) func(*bench) error {
	return func(b *bench) error {
		h, err := startEventHandler(answer)
		if err != nil {
			return err
		}
		defer h.stop()
		p, err := b.startProgram("hubs: { chat: { anonymousConnectPolicy: allow, eventHandlers: [{ urlTemplate: '" + h.url + "', userEventPattern: '*' }] } }\n")
		if err != nil {
			return err
		}
		defer p.stop()
		before, err := p.rss()
		if err != nil {
			return err
		}
		event := appendMasked(nil, ws.OpText, []byte(`{"type":"event","event":"e","dataType":"text","data":"`+strings.Repeat("x", eventSize)+`"}`))
		began := time.Now()
		var rounds, refused atomic.Int64
		var attackers sync.WaitGroup
		for range eventAttackers {
			attackers.Go(func() {
				for rounds.Add(1) <= eventRounds && time.Since(began) < eventTime && b.ctx.Err() == nil {
					if eventRound(b, p.Addr, event) != nil {
						refused.Add(1)
						time.Sleep(100 * time.Millisecond)
					}
				}
				rounds.Add(-1)
			})
		}
		done := make(chan struct{})
		go func() { // ends with the attackers
			attackers.Wait()
			close(done)
		}()
		most, err := p.mostRSS(done)
		if err != nil {
			return err
		}
		took := time.Since(began)
		time.Sleep(eventRest)
		after, err := p.rss()
		if err != nil {
			return err
		}
		b.report.add(row{name: "Hostile/case=" + name, n: rounds.Load(), nsPerOp: float64(took.Nanoseconds()) / float64(max(1, rounds.Load())), metrics: []metric{
			{"before-MiB", mib(before)}, {"most-MiB", mib(most)}, {"after-10s-MiB", mib(after)}, {"refused-rounds", float64(refused.Load())},
		}})
		b.report.goal(goal{id: "2", what: name + ": memory that events take, at most", unit: "MiB", most: 256}, mib(most-before))
		b.report.goal(goal{id: "2", what: name + ": memory that events take, 10 s after the last", unit: "MiB", most: 256}, mib(after-before))
		return nil
	}
}

// mostRSS returns the most resident memory that the program has until done is closed.
func (p *program) mostRSS(done <-chan struct{}) (most int64, _ error) {
	for {
		now, err := p.rss()
		if err != nil {
			return most, err
		}
		most = max(most, now)
		select {
		case <-done:
			return most, nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// eventRound is one connection of the attack. An error means that the node did not let
// it in.
func eventRound(b *bench, addr string, event []byte) error {
	d := ws.Dialer{Protocols: []string{client.JSON}, Timeout: time.Second}
	c, _, _, err := d.Dial(b.ctx, "ws://"+addr+"/client/hubs/chat")
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(200 * time.Millisecond)) // a node that reads no more is left
	for range eventCount {
		if !takes(c, event) {
			return nil // it was let in
		}
	}
	c.Write(ws.MustCompileFrame(ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "")))))
	io.Copy(io.Discard, c)
	return nil
}

// groupNames has clients join 10,000 groups each, with names of 1,024 characters of
// four bytes.
func groupNames(b *bench) error {
	h, err := startEventHandler(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"roles":["webpubsub.joinLeaveGroup"]}`)
	})
	if err != nil {
		return err
	}
	defer h.stop()
	p, err := b.startProgram("hubs: { chat: { anonymousConnectPolicy: allow, eventHandlers: [{ urlTemplate: '" + h.url + "', systemEvents: [connect] }] } }\n")
	if err != nil {
		return err
	}
	defer p.stop()
	before, err := p.rss()
	if err != nil {
		return err
	}
	most, clients := before, 0
	began := time.Now()
	for ; clients < nameClients && time.Since(began) < nameTime && b.ctx.Err() == nil; clients++ {
		c, err := joinMany(b, p.Addr, clients, began.Add(nameTime))
		if err != nil {
			return err
		}
		defer c.Close()
		now, err := p.rss()
		if err != nil {
			return err
		}
		most = max(most, now)
	}
	took := time.Since(began)
	b.report.add(row{name: "Hostile/case=group-names", n: int64(clients), nsPerOp: float64(took.Nanoseconds()) / float64(max(1, clients)), metrics: []metric{
		{"before-MiB", mib(before)}, {"most-MiB", mib(most)}, {"MiB/client", mib(most-before) / float64(max(1, clients))},
	}})
	b.report.goal(goal{id: "9", what: "group-names: memory of a client that joins 10,000 groups", unit: "MiB", most: 4}, mib(most-before)/float64(max(1, clients)))
	return nil
}

// joinMany lets the i-th client in, which joins its groups, and waits until the node
// has read all of it.
func joinMany(b *bench, addr string, i int, until time.Time) (net.Conn, error) {
	d := ws.Dialer{Protocols: []string{client.JSON}}
	c, _, _, err := d.Dial(b.ctx, "ws://"+addr+"/client/hubs/chat")
	if err != nil {
		return nil, err
	}
	c.SetDeadline(until.Add(patience))
	read := make(chan error, 1)
	go func() { // ends with the pong, or with the connection
		buf := make([]byte, 64<<10)
		tail := ""
		for {
			n, err := c.Read(buf)
			tail += string(buf[:n])
			if strings.Contains(tail, `"pong"`) || err != nil {
				read <- err
				return
			}
			tail = tail[max(0, len(tail)-16):]
		}
	}()
	name := strings.Repeat("\U0001F600", 1000)
	var out []byte
	for g := range nameGroups {
		out = appendMasked(out, ws.OpText, fmt.Appendf(nil, `{"type":"joinGroup","group":"%08d-%08d%s"}`, i, g, name))
		if len(out) < 1<<20 && g < nameGroups-1 {
			continue
		}
		if time.Now().After(until) || !takes(c, out) {
			break
		}
		out = out[:0]
	}
	c.Write(appendMasked(nil, ws.OpText, []byte(`{"type":"ping"}`)))
	<-read
	return c, nil
}

// takes reports whether c took p.
func takes(c net.Conn, p []byte) bool {
	_, err := c.Write(p)
	return err == nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
