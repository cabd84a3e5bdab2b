package netwire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"
)

// listen returns a listener of ours on an address of this machine.
func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	plain, err := net.Listen(network, address)
	if err != nil {
		t.Skip(err)
	}
	l := NewListener(plain)
	if _, ok := l.(*listener); !ok {
		t.Fatalf("a TCP listener became a %T", l)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// connect returns both ends of a connection that l accepted.
func connect(t *testing.T, l net.Listener) (near, far net.Conn) {
	t.Helper()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	if near, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	return near, far
}

// TestConnIsANetConn runs the conformance suite for connections.
func TestConnIsANetConn(t *testing.T) {
	for _, ours := range []string{"accepted", "dialled"} { // which end the suite calls the first
		t.Run(ours, func(t *testing.T) {
			l := listen(t, "tcp4", "127.0.0.1:0")
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				far, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					return nil, nil, nil, err
				}
				near, err := l.Accept()
				if err != nil {
					return nil, nil, nil, err
				}
				stop := func() { near.Close(); far.Close() }
				if ours == "accepted" {
					return near, far, stop, nil
				}
				return far, near, stop, nil
			})
		})
	}
}

func TestListenerAddresses(t *testing.T) {
	for _, c := range []struct{ network, address string }{
		{"tcp4", "127.0.0.1:0"}, {"tcp4", "0.0.0.0:0"}, {"tcp6", "[::1]:0"}, {"tcp", ":0"},
	} {
		t.Run(c.network+" "+c.address, func(t *testing.T) {
			near, far := connect(t, listen(t, c.network, c.address))
			for _, pair := range []struct {
				what      string
				got, want net.Addr
			}{{"remote", near.RemoteAddr(), far.LocalAddr()}, {"local", near.LocalAddr(), far.RemoteAddr()}} {
				if got, want := pair.got.(*net.TCPAddr).AddrPort(), pair.want.(*net.TCPAddr).AddrPort(); got.Port() != want.Port() || got.Addr().Unmap() != want.Addr().Unmap() {
					t.Errorf("the %s address is %s, want %s", pair.what, got, want)
				}
			}
		})
	}
}

// TestConnHasTheOptionsOfPackageNet checks what connections have from the listening
// socket.
func TestConnHasTheOptionsOfPackageNet(t *testing.T) {
	near, _ := connect(t, listen(t, "tcp4", "127.0.0.1:0"))
	plain, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	theirs, _ := connect(t, plain)
	raw, err := theirs.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct {
		what        string
		level, name int
	}{
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	} {
		got, err := unix.GetsockoptInt(int(near.(*conn).fd), o.level, o.name)
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		if err := raw.Control(func(fd uintptr) { want, err = unix.GetsockoptInt(int(fd), o.level, o.name) }); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s is %d, want %d", o.what, got, want)
		}
	}
}

func TestListenerClose(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	near, far := connect(t, l)
	done := make(chan error, 1)
	go func() { // ends with l
		_, err := l.Accept()
		done <- err
	}()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept returned %v, want net.ErrClosed", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the second Close returned %v, want net.ErrClosed", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the socket still listens")
	}
	// What was accepted stays.
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(near, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// TestDescriptorOfAConn checks that nothing is lost when a connection of ours changes
// hands, whatever was known of it by then.
func TestDescriptorOfAConn(t *testing.T) {
	for _, c := range []struct {
		name string
		// before is done to the near end first.
		before func(t *testing.T, near, far net.Conn)
		// between is done when it has changed hands, and is not started.
		between func(t *testing.T, far net.Conn)
	}{
		{name: "that nobody waited for"},
		{name: "that has been waited for", before: waitFor},
		{name: "that has been read", before: func(t *testing.T, near, far net.Conn) {
			far.Write([]byte("head"))
			if _, err := io.ReadFull(near, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			waitFor(t, near, far)
		}},
		{name: "that has unread bytes", before: func(_ *testing.T, _, far net.Conn) { far.Write([]byte("early ")) }},
		{name: "that was waited for and has unread bytes", before: func(t *testing.T, near, far net.Conn) {
			waitFor(t, near, far)
			far.Write([]byte("early "))
			await(t, func() bool { c := near.(*conn); c.mu.Lock(); defer c.mu.Unlock(); return c.in.ready })
		}},
		{name: "to which bytes come in between", before: waitFor, between: func(_ *testing.T, far net.Conn) { far.Write([]byte("early ")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, far := connect(t, listen(t, "tcp4", "127.0.0.1:0"))
			if c.before != nil {
				c.before(t, near, far)
			}
			var g Group
			r := newReader(-1)
			w := g.New(near, r)
			if _, ok := w.(*Descriptor); !ok {
				t.Fatalf("it became a %T", w)
			}
			if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("reading from what was given away returned %v, want net.ErrClosed", err)
			}
			if c.between != nil {
				c.between(t, far)
			}
			w.Start([]byte("rest "))
			far.Write([]byte("late"))
			r.await(t, "late", func() bool { return bytes.HasSuffix(r.got, []byte("late")) })
			if got := string(r.got); !strings.HasPrefix(got, "rest ") {
				t.Errorf("%q came, want what was left over first", got)
			}
			if n, err := w.OfferBytes([]byte("answer")); n != 6 || err != nil {
				t.Fatalf("OfferBytes returned %d, %v", n, err)
			}
			if _, err := io.ReadFull(far, make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			far.Close()
			r.await(t, "the end", func() bool { return r.lost != nil })
			w.Close(true)
		})
	}
}

// TestDescriptorOfAConnClosedBeforeItStarts checks that its place in the poller is
// free for others then.
func TestDescriptorOfAConnClosedBeforeItStarts(t *testing.T) {
	near, far := connect(t, listen(t, "tcp4", "127.0.0.1:0"))
	waitFor(t, near, far)
	p := near.(*conn).poller
	var g Group
	w := g.New(near, newReader(-1))
	w.Close(true)
	w.Start(nil)
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the far end read %v, want the end", err)
	}
	await(t, func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.count == 0 && p.file == nil })
}

// TestDescriptorHearsOfRoom checks that a socket that was full is reported to have
// room, whether it became full before or after Start.
func TestDescriptorHearsOfRoom(t *testing.T) {
	for _, started := range []bool{false, true} {
		for _, ours := range []bool{false, true} {
			near, far := pair(t)
			if ours {
				near, far = connect(t, listen(t, "tcp4", "127.0.0.1:0"))
				waitFor(t, near, far)
			}
			var g Group
			r := newReader(-1)
			w := g.New(near, r)
			if started {
				w.Start(nil)
			}
			for p := make([]byte, 1<<20); ; {
				n, err := w.OfferBytes(p)
				if err != nil {
					t.Fatal(err)
				}
				if n < len(p) {
					break
				}
			}
			if !started {
				w.Start(nil)
			}
			go io.Copy(io.Discard, far) // ends with far
			r.await(t, "room", func() bool { return r.writable > 0 })
			w.Close(false)
		}
	}
}

// waitFor lets a call of Read wait for near until its deadline.
func waitFor(t *testing.T, near, _ net.Conn) {
	t.Helper()
	near.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Read returned %v, want os.ErrDeadlineExceeded", err)
	}
	near.SetReadDeadline(time.Time{})
}

// await waits until cond holds.
func await(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}
