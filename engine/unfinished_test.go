package engine_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// endings notes how connections end, by their ids.
type endings chan string

func (e endings) observer() engine.Observer {
	return engine.Observer{ConnEnded: func(_ engine.HubName, code engine.CloseCode, reason engine.EndReason) {
		e <- fmt.Sprint(code, " ", reason)
	}}
}

func (e endings) none(t *testing.T) {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-e:
		t.Fatalf("a connection ended with %s", got)
	default:
	}
}

func (e endings) one(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-e:
		if got != want {
			t.Fatalf("a connection ended with %s; want %s", got, want)
		}
	default:
		t.Fatalf("no connection ended; want one with %s", want)
	}
}

// The time of a message begins with its first byte, and ends with its last.
func TestMessageTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(endings, 10)
		e := start(t, &engine.Options{Observer: ended.observer(), Limits: engine.Limits{MessageTimeout: 10 * time.Second}})
		h := e.Hub("chat")
		steady, late, waits := connect(t, h, open{}), connect(t, h, open{}), connect(t, h, open{})

		waits.Kept(waits.WireID()).Hold(1000)
		for range 10 { // each message has a time of its own
			u := steady.Unfinished(steady.WireID())
			time.Sleep(6 * time.Second)
			u.Hold(500)
			u.Done()
		}
		ended.none(t)

		first := late.Unfinished(late.WireID())
		time.Sleep(9 * time.Second)
		first.Hold(10) // that more arrives does not prolong it
		fresh := steady.Unfinished(steady.WireID())
		time.Sleep(999 * time.Millisecond)
		ended.none(t)
		time.Sleep(time.Millisecond)
		ended.one(t, "1008 MessageTimeout")
		ended.none(t)
		time.Sleep(9 * time.Second)
		ended.one(t, "1008 MessageTimeout")
		fresh.Done()
		first.Done()
		time.Sleep(time.Hour)
		ended.none(t)
		if n := e.Stats().UnfinishedBytes; n != 1000 {
			t.Errorf("%d bytes are unfinished; want the 1000 that wait", n)
		}
		e.Close()
	})
}

// Over the bound of the node the largest message's connection ends first, and what
// a closed connection kept is counted no more.
func TestTotalUnfinishedBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(endings, 10)
		e := start(t, &engine.Options{Shards: 2, Observer: ended.observer(), Limits: engine.Limits{TotalUnfinishedBytes: 1000}})
		h := e.Hub("chat")
		var clients []*client
		var parts []*engine.Unfinished
		for range 4 {
			c := connect(t, h, open{})
			clients = append(clients, c)
			parts = append(parts, c.Unfinished(c.WireID()))
		}
		parts[0].Hold(400)
		parts[1].Hold(300)
		parts[2].Hold(300)
		ended.none(t)
		parts[3].Hold(1)
		ended.one(t, "1008 TotalUnfinished")
		ended.none(t)
		// What the ending one keeps does not end others, unless it is as much again.
		parts[3].Hold(400)
		ended.none(t)
		parts[0].Hold(1100)
		synctest.Wait()
		if !clients[0].Closed() {
			t.Error("an ending connection keeps the bytes of the whole node")
		}
		if n := e.Stats().UnfinishedBytes; n != 1000 {
			t.Errorf("%d bytes are unfinished; want 1000", n)
		}
		clients[1].lose()
		synctest.Wait()
		parts[1].Hold(5000) // by a transport that has not noticed
		if n := e.Stats().UnfinishedBytes; n != 700 {
			t.Errorf("%d bytes are unfinished after a connection was lost; want 700", n)
		}
		e.Close()
		if n := e.Stats().UnfinishedBytes; n != 0 {
			t.Errorf("%d bytes are unfinished of a closed engine", n)
		}
	})
}

// A client without a connection yet counts, too.
func TestUnfinishedBeforeConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, &engine.Options{Limits: engine.Limits{TotalUnfinishedBytes: 1000}})
		var cut []string
		guest := e.Unfinished(func(reason string) { cut = append(cut, reason) })
		guest.Hold(600)
		other := e.Unfinished(func(string) { t.Error("the smaller one was cut") })
		other.Hold(500)
		other.Hold(501)
		if len(cut) != 1 || !strings.Contains(cut[0], "limits.totalUnfinishedBytes") {
			t.Errorf("the largest was told %q; want the rule, once", cut)
		}
		guest.Done()
		other.Done()
		if n := e.Stats().UnfinishedBytes; n != 0 {
			t.Errorf("%d bytes are unfinished", n)
		}
		e.Close()
	})
}

// The part of a message that was on a lost wire goes with that wire, not with the
// connection's next one.
func TestUnfinishedOfAnOlderWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, nil)
		c := durable(t, e.Hub("chat"), open{})
		c.Unfinished(c.WireID()).Hold(100)
		c.Unfinished(c.WireID() + 1).Hold(10)
		c.lose()
		synctest.Wait()
		if n := e.Stats().UnfinishedBytes; n != 10 {
			t.Errorf("%d bytes are unfinished; want the 10 of the next wire", n)
		}
		e.Close()
	})
}

// AckUpTo tells what is news.
func TestAckUpToTellsNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, nil)
		h := e.Hub("chat")
		c := durable(t, h, open{groups: []engine.GroupName{"g"}})
		for range 200 {
			must(t, h.SendToGroup(t.Context(), "g", engine.Payload{Data: []byte("x")}, nil))
		}
		synctest.Wait()
		for seq := engine.SequenceID(1); seq <= 200; seq++ {
			if !c.AckUpTo(seq) {
				t.Fatalf("acknowledging %d is not news", seq)
			}
		}
		if c.AckUpTo(200) || c.AckUpTo(7) {
			t.Error("acknowledging the same again is news")
		}
		news := 0
		for seq := engine.SequenceID(201); seq < 10_000; seq++ {
			if c.AckUpTo(seq) {
				news++
			}
		}
		if news > 100 {
			t.Errorf("%d acknowledgements of nothing were news", news)
		}
		e.Close()
	})
}
