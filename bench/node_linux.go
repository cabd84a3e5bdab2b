package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/memory"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/websocket"
)

// Settings of a node, in its environment.
const (
	tlsVariable      = "FANFARE_BENCH_TLS"      // not empty: speak TLS
	portableVariable = "FANFARE_BENCH_PORTABLE" // not empty: force the portable path
	outboundVariable = "FANFARE_BENCH_OUTBOUND" // how many messages may wait for one connection
	profileVariable  = "FANFARE_BENCH_PROFILE"  // a directory: leave a CPU and a heap profile there
)

// readHeaderTimeout is what a server on the Internet sets; see net/http.
const readHeaderTimeout = 30 * time.Second

// hub is where everything happens.
const hub = engine.HubName("bench")

// runNode is the node that is measured: an engine behind the WebSocket door, with
// access tokens verified, and groups and permissions as a real one has them.
func runNode(in io.Reader, out io.Writer) (err error) {
	dir := os.Getenv(profileVariable)
	if dir != "" {
		stop, err := profile(dir, "node")
		if err != nil {
			return err
		}
		defer stop()
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go memory.Run(ctx, nil) // as cmd/fanfare has it
	secret := make([]byte, 48)
	rand.Read(secret)
	key := base64.StdEncoding.EncodeToString(secret)

	// A connection that is ended for its slowness is no news here: either the run
	// expects it or it is not exact and says so.
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	o := &engine.Options{Logger: logger}
	if s := os.Getenv(outboundVariable); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("%s: %w", outboundVariable, err)
		}
		o.Limits.OutboundMessages = n
		o.Limits.OutboundBytes = 256 << 20
	}
	e, err := engine.New(o)
	if err != nil {
		return err
	}
	defer e.Close()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	portable := os.Getenv(portableVariable) != ""
	if !portable && os.Getenv(tlsVariable) == "" {
		l = websocket.NewListener(l) // as cmd/fanfare has it
	}
	hello := ready{Addr: l.Addr().(*net.TCPAddr).AddrPort(), Key: key}
	srv := &http.Server{
		Handler: websocket.NewHandler(e, authenticator(key), &websocket.Options{
			Logger: logger, Portable: portable,
		}),
		ReadHeaderTimeout: readHeaderTimeout,
		ErrorLog:          log.New(os.Stderr, "http: ", 0),
	}
	if os.Getenv(tlsVariable) != "" {
		cert, roots, err := selfSigned()
		if err != nil {
			return err
		}
		hello.Roots = roots
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
		l = tls.NewListener(l, srv.TLSConfig)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	err = answer(in, out, hello, e.Stats, func(c command) error {
		if c.Do != "heap" || dir == "" {
			return errors.ErrUnsupported
		}
		return heapProfile(filepath.Join(dir, fmt.Sprintf("node-%d.idle.heap", os.Getpid())))
	})
	srv.Close()
	<-done
	return err
}

// profile records what the process does with its time until stop is called, and
// then what it still holds.
func profile(dir, name string) (stop func(), err error) {
	runtime.MemProfileRate = 4 << 10
	base := filepath.Join(dir, fmt.Sprintf("%s-%d", name, os.Getpid()))
	f, err := os.Create(base + ".cpu")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		if err := errors.Join(f.Close(), heapProfile(base+".heap")); err != nil {
			fmt.Fprintln(os.Stderr, "bench: profile:", err)
		}
	}, nil
}

// heapProfile writes what is live to a file.
func heapProfile(path string) error {
	runtime.GC()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}

// keys are the one key of a node.
type keys []*token.Key

func (k keys) Keys(string) []*token.Key { return k }

// authenticator lets in who shows a token that key signed for this node and hub.
func authenticator(key string) transport.Authenticator {
	ours := keys{token.NewKey([]byte(key))}
	return transport.AuthenticatorFunc(func(_ context.Context, c engine.Credentials) (engine.Identity, error) {
		t, err := token.Verify(c.Token, time.Now(), ours)
		if err != nil {
			return engine.Identity{}, err
		}
		if err := t.CheckAudience(c, nil); err != nil {
			return engine.Identity{}, err
		}
		return t.Identity()
	})
}

// clientPath returns the request target for client i, with a token of its own.
func (r *ready) clientPath(i int) string {
	scheme := "http"
	if r.Roots != "" {
		scheme = "https"
	}
	t, err := token.Mint(token.NewKey([]byte(r.Key)), token.Claims{
		Audience: token.Audience(scheme+"://"+r.Addr.String(), hub),
		User:     engine.UserID(fmt.Sprintf("user-%d", i)),
		Roles:    []string{"webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"},
	})
	if err != nil {
		panic(err) // the claims are constants: a bug of this file
	}
	return "/client/hubs/" + string(hub) + "?access_token=" + url.QueryEscape(t)
}

func selfSigned() (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(roots), nil
}
