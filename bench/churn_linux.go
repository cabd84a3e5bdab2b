package main

import (
	"crypto/sha1" //nolint:gosec // RFC 6455 section 4.2.2 wants it
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gobwas/ws"
)

// churn measures connecting, authenticating, joining and leaving, beside the bare
// server, which does no more than a WebSocket handshake needs. The two take turns,
// so that both have the same share of a noisy machine.
func (b *bench) churn(conns int) error {
	for round := range b.rounds {
		b.say("churn/conns=%d, round %d of %d", conns, round+1, b.rounds)
		var each [2]float64
		for i := range each {
			// Every other round begins with the other one.
			node := (i+round)%2 == 0
			v, err := b.churnOf(node, conns)
			if err != nil {
				return fmt.Errorf("churn: %w", err)
			}
			if node {
				each[0] = v
			} else {
				each[1] = v
			}
		}
		g := goal{id: "T7", what: "connect, verify, join, drop: CPU over the bare server's", unit: "x", most: 1.25}
		b.report.goal(g, each[0]/each[1])
	}
	return nil
}

// churnOf measures the node, or the bare server, and returns milliseconds of CPU
// time for 1,000 connections.
func (b *bench) churnOf(node bool, conns int) (float64, error) {
	name, start := "Churn", b.node
	if !node {
		name, start = "ChurnBare", b.bareUpgrader
	}
	c, err := start()
	if err != nil {
		return 0, err
	}
	defer c.stop()
	// The tokens are made beforehand: they are the load's work, not the server's.
	paths := make([]string, conns)
	for i := range paths {
		paths[i] = c.clientPath(i)
	}
	t := target{addr: c.Addr, path: func(i int) string { return paths[i] }, groups: oneGroup("bench"), closes: !node}
	wave := func() error {
		s, err := newSwarm(b.ctx, conns, minPayload, t)
		if err != nil {
			return err
		}
		s.close()
		return nil
	}
	if err := wave(); err != nil { // warms up
		return 0, err
	}
	m0, err := c.empty()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for range waves {
		if err := wave(); err != nil {
			return 0, err
		}
	}
	wall := time.Since(began)
	m1, err := c.empty()
	if err != nil {
		return 0, err
	}
	conns *= waves
	each := ms(m1.CPU-m0.CPU) / float64(conns) * 1000
	b.report.add(row{
		name: fmt.Sprintf("%s/conns=%d", name, conns/waves), n: int64(conns), nsPerOp: float64(wall.Nanoseconds()) / float64(conns),
		metrics: []metric{{"cpu-ms/1000", each}, {"conns/s", float64(conns) / wall.Seconds()}},
	})
	return each, nil
}

// waves is how often so many connections come and go in one measurement.
const waves = 3

// empty waits until the last connection is gone. It does not collect the child's
// garbage: a server that comes to a wave with no memory of its own would have to get
// it from the kernel first.
func (c *child) empty() (mark, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		m, err := c.mark()
		if err != nil || m.Stats.Connections == 0 && m.Stats.Groups == 0 {
			return m, err
		}
		if time.Now().After(deadline) {
			return m, fmt.Errorf("%d connections are still there after %v", m.Stats.Connections, patience)
		}
	}
}

// bareUpgrader starts the bare server.
func (b *bench) bareUpgrader(settings ...string) (*child, error) {
	if b.profile != "" {
		settings = append(settings, profileVariable+"="+b.profile)
	}
	return spawn("upgrader", settings...)
}

// runUpgrader is the floor of a connection's life: a net/http server that
// upgrades, writes one frame, reads one, and closes. It checks nothing.
func runUpgrader(in io.Reader, out io.Writer) error {
	if dir := os.Getenv(profileVariable); dir != "" {
		stop, err := profile(dir, "bare")
		if err != nil {
			return err
		}
		defer stop()
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           http.HandlerFunc(upgradeOnce),
		ReadHeaderTimeout: readHeaderTimeout,
		ErrorLog:          log.New(os.Stderr, "http: ", 0),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	// A key, so that clients ask for the same path as they do of a node.
	hello := ready{Addr: l.Addr().(*net.TCPAddr).AddrPort(), Key: "not looked at"}
	err = answer(in, out, hello, nil, nil)
	srv.Close()
	<-done
	return err
}

// upgradeOnce is the whole life of a connection of the bare server.
func upgradeOnce(w http.ResponseWriter, r *http.Request) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	// RFC 6455 section 4.2.2. Answer and frame go out in one write.
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
	rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ")
	rw.WriteString(base64.StdEncoding.EncodeToString(sum[:]))
	rw.WriteString("\r\n\r\n")
	const hello = `{"type":"system","event":"connected","connectionId":"0"}`
	rw.Write(appendHeader(nil, ws.OpText, len(hello)))
	rw.WriteString(hello)
	if rw.Flush() != nil {
		return
	}
	ws.ReadFrame(rw) // whatever comes, the connection is over
}
