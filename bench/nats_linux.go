package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/gobwas/ws"
)

// What the load generator needs of the NATS client protocol, which is a stream of
// lines inside WebSocket messages, to put the same traffic on nats-server.

var (
	crlf     = []byte("\r\n")
	natsMsg  = []byte("MSG ")
	natsPing = []byte("PING")
	natsErr  = []byte("-ERR")
)

// natsHello upgrades c and subscribes it to its groups as subjects.
func (c *conn) natsHello(host string, subjects []string) error {
	c.nats = new([]byte)
	if err := c.handshake(host, "/", ""); err != nil {
		return err
	}
	hello := `CONNECT {"verbose":false,"pedantic":false,"protocol":1,"auth_token":"bench-token"}` + "\r\n"
	for i, s := range subjects {
		hello += fmt.Sprintf("SUB %s %d\r\n", s, i+1)
	}
	c.queue(ws.OpBinary, []byte(hello+"PING\r\n"))
	if err := c.flush(); err != nil {
		return err
	}
	// The PONG says that all before it was done.
	var said []byte
	for !bytes.Contains(said, []byte("PONG\r\n")) {
		f, err := c.read()
		if err != nil {
			return fmt.Errorf("wait for the PONG: %w (after %.200q)", err, said)
		}
		if said = append(said, f.body...); len(said) > maxFrame || bytes.Contains(said, natsErr) {
			return fmt.Errorf("nats-server says %.300q", said)
		}
	}
	return nil
}

// natsFeed takes the next piece of c's stream and returns how many messages it
// completed.
func (r *reader) natsFeed(c *conn, piece []byte) (n int64) {
	text := piece
	if len(*c.nats) > 0 {
		text = append(*c.nats, piece...)
	}
	for {
		line, rest, ok := bytes.Cut(text, crlf)
		if !ok {
			break
		}
		switch {
		case bytes.HasPrefix(line, natsMsg):
			size, err := strconv.Atoi(string(line[bytes.LastIndexByte(line, ' ')+1:]))
			if err != nil || size != r.swarm.size {
				r.swarm.fail("connection %d got %.80q", c.index, line)
				return n
			}
			if len(rest) < size+len(crlf) {
				*c.nats = append((*c.nats)[:0], text...)
				return n
			}
			r.deliver(c, rest[:size], rest[:size])
			n++
			rest = rest[size+len(crlf):]
		case bytes.HasPrefix(line, natsPing):
			if err := writeAll(c.fd, appendMasked(nil, ws.OpBinary, []byte("PONG\r\n"))); err != nil {
				r.swarm.fail("connection %d cannot answer a ping: %v", c.index, err)
			}
		case bytes.HasPrefix(line, natsErr):
			r.swarm.fail("connection %d got %.200q", c.index, line)
			return n
		}
		text = rest
	}
	*c.nats = append((*c.nats)[:0], text...)
	return n
}

// appendNATSPublish appends a PUB of payload in a frame of its own.
func appendNATSPublish(b, scratch []byte, subject string, payload []byte) (out, scratchOut []byte) {
	s := fmt.Appendf(scratch[:0], "PUB %s %d\r\n", subject, len(payload))
	s = append(append(s, payload...), crlf...)
	return appendMasked(b, ws.OpBinary, s), s
}

// buildNATS builds the peer, which is a module of its own, into dir.
func buildNATS(dir string) (string, error) {
	src := "bench/peers/nats"
	if _, err := os.Stat(src); err != nil {
		src = "peers/nats"
	}
	binary := filepath.Join(dir, "nats")
	cmd := exec.Command("go", "build", "-C", src, "-o", binary, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s (run bench from the repository): %w\n%s", src, err, out)
	}
	return binary, nil
}

// versusNATS puts the same traffic on nats-server, in the same rounds.
func (b *bench) versusNATS(members, payloads []int, rates []float64) error {
	dir, err := os.MkdirTemp("", "bench-nats-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.say("building nats-server")
	binary, err := buildNATS(dir)
	if err != nil {
		return err
	}
	for _, rate := range rates {
		for _, payload := range payloads {
			for _, n := range members {
				ours := load{members: n, payload: payload, rate: rate, acked: true}
				theirs := load{members: n, payload: payload, rate: rate, nats: binary}
				err := b.pair("NATS", ours, theirs, func(ours, theirs *sample) metric {
					b.natsGoals(ours, theirs, n, payload, rate)
					return metric{"x-fanfare", theirs.perMillion() / ours.perMillion()}
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *bench) natsGoals(ours, theirs *sample, members, payload int, rate float64) {
	where := fmt.Sprintf("N=%d, %d B, %s: ", members, payload, rateName(rate))
	p99 := float64(ours.latency.quantile(0.99)) / float64(theirs.latency.quantile(0.99))
	cpu := ours.perMillion() / theirs.perMillion()
	plain := payload == 128
	switch {
	case rate == 0:
		g := goal{id: "-", what: where + "deliveries per CPU-second over nats-server's", unit: "x"}
		if plain && members == 1000 {
			g.id, g.least = "T1b", 2
		}
		if plain && members == 5000 {
			g.id, g.least = "T1c", 8
		}
		b.report.goal(g, 1/cpu)
		return
	case plain && members == 1000 && rate == 400_000:
		b.report.goal(goal{id: "T3", what: where + "CPU over nats-server's", unit: "x", most: 0.6}, cpu)
		b.report.goal(goal{id: "T3", what: where + "p99 over nats-server's", unit: "x", most: 0.7}, p99)
		return
	}
	g := goal{id: "-", what: where + "p99 over nats-server's", unit: "x"}
	if plain && members == 1000 && rate == 100_000 {
		g.id, g.most = "T5", 0.65
	}
	b.report.goal(g, p99)
	b.report.goal(goal{id: "-", what: where + "CPU over nats-server's", unit: "x"}, cpu)
}
