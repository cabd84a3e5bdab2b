package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	rand2 "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/accesskey"
)

// front is a running program, and how its listener is spoken to.
type front struct {
	*program
	secure bool
	dir    string
}

// startFront starts the program, over TLS if secure is set.
func (b *bench) startFront(secure bool) (*front, error) {
	dir, err := os.MkdirTemp("", "bench-front-")
	if err != nil {
		return nil, err
	}
	configuration := ""
	if secure {
		if err := writeKeyPair(dir); err != nil {
			return nil, err
		}
		configuration = fmt.Sprintf("tls: { certFile: %s, keyFile: %s }\n", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	}
	p, err := b.startProgram(configuration)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return &front{program: p, secure: secure, dir: dir}, nil
}

func (f *front) stop() error {
	defer os.RemoveAll(f.dir)
	return f.program.stop()
}

// writeKeyPair writes cert.pem and key.pem, for loopback, into dir.
func writeKeyPair(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600))
}

// dial connects, from the given address if it is not empty.
func (f *front) dial(from, protocol string) (net.Conn, error) {
	d := net.Dialer{Timeout: probeTime}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", f.Addr)
	if err != nil || !f.secure || protocol == "" {
		return c, err
	}
	_ = c.SetDeadline(time.Now().Add(probeTime))
	t := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}) //nolint:gosec // the program's own certificate of this minute
	if err := t.Handshake(); err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}

// token returns a client's token, which servers may use as well for the path.
func (f *front) token(path string) (string, error) {
	scheme := "http"
	if f.secure {
		scheme = "https"
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"aud": scheme + "://" + f.Addr + path, "exp": time.Now().Add(time.Hour).Unix(), "sub": "ann",
	}).SignedString([]byte(accesskey.DevelopmentKey))
}

// probeTime is the most that a probe waits.
const probeTime = 12 * time.Second

// probe connects, sends a request, and returns how long it took until the status came.
func (f *front) probe(request string, status int) (time.Duration, error) {
	started := time.Now()
	c, err := f.dial("", "http/1.1")
	if err != nil {
		return time.Since(started), err
	}
	defer c.Close()
	_ = c.SetDeadline(started.Add(probeTime))
	if _, err := io.WriteString(c, request); err != nil {
		return time.Since(started), err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	took := time.Since(started)
	if err == nil && !strings.HasPrefix(line, fmt.Sprintf("HTTP/1.1 %d ", status)) {
		err = fmt.Errorf("answered %q", line)
	}
	return took, err
}

const healthRequest = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

func (f *front) clientRequest() (string, error) {
	token, err := f.token("/client/hubs/chat")
	return "GET /client/hubs/chat?access_token=" + token + " HTTP/1.1\r\nHost: " + f.Addr +
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", err
}

// silentKinds are the ways in which a client can open a connection and not send a request.
var silentKinds = []struct {
	name, send string
	secure     bool
	prefixes   int
}{
	{"silent", "", false, 1},
	{"silent", "", false, 40},
	{"headers", "GET /client/hubs/chat HTTP/1.1\r\nHost: x\r\nX-A: ", false, 1},
	{"hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", true, 1},
}

// hostileSilent measures what new clients and health checks wait for beside 10,000
// connections that send no request and come again when they are closed.
func hostileSilent(b *bench) error {
	const sockets = 10_000
	for _, kind := range silentKinds {
		f, err := b.startFront(kind.secure)
		if err != nil {
			return err
		}
		err = b.silent(f, sockets, kind.name, kind.send, kind.prefixes)
		if err := errors.Join(err, f.stop()); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) silent(f *front, sockets int, name, send string, prefixes int) error {
	ctx, cancel := context.WithCancel(b.ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var open, opened atomic.Int64
	for i := range sockets {
		from := fmt.Sprintf("127.0.%d.1", i%prefixes+1)
		if prefixes == 1 {
			from = "" // without a bind, which would need a port that no connection has
		}
		all.Go(func() { f.hold(ctx, from, send, &open, &opened) })
	}
	time.Sleep(2 * time.Second) // until most have come
	client, err := f.clientRequest()
	if err != nil {
		return err
	}
	before := opened.Load()
	started := time.Now()
	for _, probe := range []struct {
		name, request string
		status        int
	}{{"client", client, http.StatusSwitchingProtocols}, {"health", healthRequest, http.StatusOK}} {
		took, failed := new(histogram), 0
		begun := time.Now()
		n := 0
		for ; n < 200 && time.Since(begun) < 3*time.Second; n++ {
			d, err := f.probe(probe.request, probe.status)
			took.add(d.Nanoseconds())
			if err != nil {
				failed++
			}
			time.Sleep(5 * time.Millisecond)
		}
		rss, err := f.rss()
		if err != nil {
			return err
		}
		what := fmt.Sprintf("hostile/silent=%s/prefixes=%d/%s", name, prefixes, probe.name)
		b.report.add(row{name: "Hostile/silent=" + name + fmt.Sprintf("/prefixes=%d/", prefixes) + probe.name, n: int64(n), nsPerOp: float64(took.quantile(0.5).Nanoseconds()),
			metrics: []metric{
				{"p50-ms", ms(took.quantile(0.50))}, {"p99-ms", ms(took.quantile(0.99))}, {"failed", float64(failed)},
				{"open", float64(open.Load())}, {"opened/s", float64(opened.Load()-before) / time.Since(started).Seconds()}, {"RSS-MiB", float64(rss) / (1 << 20)},
			}})
		b.report.goal(goal{id: "H4", what: what + ": p99", unit: "ms", most: 100}, ms(took.quantile(0.99)))
		b.report.goal(goal{id: "H4", what: what + ": failed", unit: ""}, float64(failed))
	}
	return nil
}

// hold keeps a connection open, and opens another one when it is closed, until ctx ends.
func (f *front) hold(ctx context.Context, from, send string, open, opened *atomic.Int64) {
	const pause = 5 * time.Second
	for ctx.Err() == nil {
		c, err := f.dial(from, "")
		if err == nil {
			opened.Add(1)
			open.Add(1)
			stop := context.AfterFunc(ctx, func() { c.Close() })
			io.WriteString(c, send)
			io.Copy(io.Discard, c)
			_ = tcp(c).SetLinger(0) // leaves no port behind
			stop()
			c.Close()
			open.Add(-1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(rand2.N(2 * pause)):
		}
	}
}

func tcp(c net.Conn) *net.TCPConn { return c.(*net.TCPConn) }

// hostileBodies measures what refused requests cost whose bodies do not come.
func hostileBodies(b *bench) (err error) {
	const sockets, patient = 19_000, 14 * time.Second
	f, err := b.startFront(false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	idle, err := f.rss()
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	var open, answered, failed atomic.Int64
	lives := new(histogram)
	var mu sync.Mutex // guards lives
	tickets := make(chan struct{}, 256)
	for range sockets {
		tickets <- struct{}{}
		all.Go(func() {
			started := time.Now()
			c, err := f.dial("", "")
			<-tickets
			if err != nil {
				failed.Add(1)
				return
			}
			defer c.Close()
			open.Add(1)
			defer open.Add(-1)
			_ = c.SetDeadline(started.Add(patient))
			io.WriteString(c, "POST /api/hubs/chat/:send?api-version=2024-12-01 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
			if n, _ := io.Copy(io.Discard, c); n > 0 {
				answered.Add(1)
			}
			mu.Lock()
			lives.add(time.Since(started).Nanoseconds())
			mu.Unlock()
			_ = tcp(c).SetLinger(0)
		})
	}
	time.Sleep(time.Second)
	most, err := f.rss()
	if err != nil {
		return err
	}
	stay := open.Load()
	health, probeErr := f.probe(healthRequest, http.StatusOK)
	time.Sleep(11 * time.Second)
	late := open.Load()
	all.Wait()
	b.report.add(row{name: fmt.Sprintf("Hostile/unread-bodies=%d", sockets), n: sockets, nsPerOp: float64(lives.quantile(0.5).Nanoseconds()), metrics: []metric{
		{"RSS-MiB", float64(most) / (1 << 20)}, {"RSS-more-MiB", float64(most-idle) / (1 << 20)}, {"open-after-1s", float64(stay)}, {"open-after-12s", float64(late)},
		{"answered", float64(answered.Load())}, {"not-connected", float64(failed.Load())}, {"health-ms", ms(health)},
	}})
	if probeErr != nil {
		b.say("the health check failed: %v", probeErr)
	}
	b.report.goal(goal{id: "H3", what: "unread bodies: memory of the node", unit: "MiB more", most: 64}, float64(most-idle)/(1<<20))
	b.report.goal(goal{id: "H3", what: "unread bodies: connections that live for 12 s", unit: ""}, float64(late))
	return nil
}

// hostileRefusals measures what refusals write to the log.
func hostileRefusals(b *bench) (err error) {
	const refusals = 5000
	f, err := b.startFront(false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	for _, kind := range []struct {
		name, request string
		status        int
	}{
		{"client", "GET /client/hubs/chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", http.StatusUnauthorized},
		{"rest", "POST /api/hubs/chat/:send?api-version=2024-12-01 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", http.StatusUnauthorized},
	} {
		before, started := f.logBytes(), time.Now()
		for range refusals {
			if _, err := f.probe(kind.request, kind.status); err != nil {
				return err
			}
		}
		took := time.Since(started)
		time.Sleep(100 * time.Millisecond) // until the log has been read
		each := float64(f.logBytes()-before) / refusals
		b.report.add(row{name: "Hostile/refusal-log/" + kind.name, n: refusals, nsPerOp: float64(took.Nanoseconds()) / refusals, metrics: []metric{{"log-B/op", each}}})
		b.report.goal(goal{id: "H8", what: "refusals of " + kind.name + ": log for each", unit: "B", most: 10}, each)
	}
	return nil
}

// hostileResets measures what resets of HTTP/2 streams cost: the log, and the time of a
// neighbour that sends a message over a connection of its own.
func hostileResets(b *bench) (err error) {
	f, err := b.startFront(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	const path = "/api/hubs/chat/:send"
	token, err := f.token(path)
	if err != nil {
		return err
	}
	web := &http.Client{Timeout: probeTime, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // the program's own certificate of this minute
	defer web.CloseIdleConnections()
	neighbour := func(d time.Duration) (*histogram, int, error) {
		h, failed := new(histogram), 0
		for started := time.Now(); time.Since(started) < d; time.Sleep(5 * time.Millisecond) {
			r, err := http.NewRequestWithContext(b.ctx, http.MethodPost, "https://"+f.Addr+path+"?api-version=2024-12-01", strings.NewReader("hello"))
			if err != nil {
				return nil, 0, err
			}
			r.Header.Set("Content-Type", "text/plain")
			r.Header.Set("Authorization", "Bearer "+token)
			begun := time.Now()
			reply, err := web.Do(r)
			if err != nil {
				failed++
				continue
			}
			io.Copy(io.Discard, reply.Body)
			reply.Body.Close()
			h.add(time.Since(begun).Nanoseconds())
			if reply.StatusCode != http.StatusAccepted {
				return nil, 0, fmt.Errorf("a neighbour's message: %s", reply.Status)
			}
		}
		return h, failed, nil
	}
	alone, _, err := neighbour(2 * time.Second)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(b.ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var streams, conns atomic.Int64
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				conns.Add(1)
				f.reset(ctx, &streams)
			}
		})
	}
	const d = 6 * time.Second
	before := f.logBytes()
	busy, err := f.cpu()
	if err != nil {
		return err
	}
	beside, failed, err := neighbour(d)
	if err != nil {
		return err
	}
	logged := float64(f.logBytes()-before) / d.Seconds()
	used, err := f.cpu()
	if err != nil {
		return err
	}
	rss, err := f.rss()
	if err != nil {
		return err
	}
	b.report.add(row{name: "Hostile/h2-reset", n: streams.Load(), nsPerOp: float64(d.Nanoseconds()) / float64(max(1, streams.Load())), metrics: []metric{
		{"log-B/s", logged}, {"p50-ms", ms(beside.quantile(0.5))}, {"p99-ms", ms(beside.quantile(0.99))}, {"alone-p50-ms", ms(alone.quantile(0.5))}, {"failed", float64(failed)},
		{"node-cpu-s/s", (used - busy).Seconds() / d.Seconds()},
		{"streams/s", float64(streams.Load()) / d.Seconds()}, {"connections/s", float64(conns.Load()) / d.Seconds()}, {"RSS-MiB", float64(rss) / (1 << 20)},
	}})
	b.report.goal(goal{id: "H8", what: "resets of HTTP/2 streams: log", unit: "B/s", most: 10_000}, logged)
	b.report.goal(goal{id: "H8", what: "resets of HTTP/2 streams: a neighbour's p50", unit: "ms"}, ms(beside.quantile(0.5)))
	return nil
}

// reset opens streams on one connection and resets them, until it is closed or ctx ends.
func (f *front) reset(ctx context.Context, streams *atomic.Int64) {
	c, err := f.dial("", "h2")
	if err != nil {
		time.Sleep(10 * time.Millisecond)
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	_ = c.SetDeadline(time.Now().Add(probeTime))
	var all sync.WaitGroup
	defer all.Wait()
	defer c.Close()
	gone := make(chan struct{})
	all.Go(func() {
		defer close(gone)
		in := http2.NewFramer(io.Discard, c)
		for {
			if f, err := in.ReadFrame(); err != nil {
				return
			} else if _, ok := f.(*http2.GoAwayFrame); ok {
				return
			}
		}
	})
	out := bufio.NewWriterSize(c, 4<<10)
	out.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(out, c)
	if framer.WriteSettings() != nil {
		return
	}
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	for id := uint32(1); id < 1<<30; id += 2 {
		select {
		case <-gone:
			return
		default:
		}
		block.Reset()
		for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "x"}, {":path", "/api/hubs/chat/groups/g?api-version=2024-12-01"}} {
			encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
		}
		err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true})
		if err == nil {
			err = framer.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		if err != nil {
			return
		}
		streams.Add(1)
	}
}
