package netwire

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// TestScattered writes messages whose large bodies are shared, behind prefixes of
// the connections' own, through sockets that stop at any byte.
func TestScattered(t *testing.T) {
	each(t, func(t *testing.T, g *Group) {
		e, err := engine.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		h := e.Hub("chat")
		var want bytes.Buffer
		var bodies [][]byte
		random := rand.New(rand.NewPCG(1, 2))
		for i := range 40 {
			body := bytes.Repeat([]byte{byte('a' + i%26)}, random.IntN(100<<10))
			bodies = append(bodies, body)
			fmt.Fprintf(&want, "#%d text @g %s\n", i+1, body)
		}
		const conns = 3
		got := make(chan []byte, conns)
		for range conns {
			near, far := pair(t)
			a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{Groups: []engine.GroupName{"g"}}})
			if err != nil {
				t.Fatal(err)
			}
			var conn *engine.Conn
			r := &writableReader{writable: func() { conn.Writable() }}
			w := g.New(near, r)
			if _, err := a.Open(w, &engine.OpenOptions{
				Encoding: enginetest.Lines{Numbered: true}, Numbered: true,
				Bind: func(c *engine.Conn, _ engine.WireID) { conn = c },
			}); err != nil {
				t.Fatal(err)
			}
			w.Start(nil)
			go func() { // ends with the deadline that pair sets, if not before
				hello := []byte("connected " + string(conn.ID()) + "\n")
				p := make([]byte, len(hello)+want.Len())
				n, _ := io.ReadFull(far, p)
				got <- bytes.TrimPrefix(p[:n], hello)
			}()
		}
		for _, body := range bodies {
			if err := h.SendToGroup(t.Context(), "g", engine.Payload{Data: body}, nil); err != nil {
				t.Fatal(err)
			}
		}
		for range conns {
			if p := <-got; !bytes.Equal(p, want.Bytes()) {
				t.Errorf("%d bytes came, or other ones; want %d", len(p), want.Len())
			}
		}
	})
}

type writableReader struct{ writable func() }

func (*writableReader) Consume(p []byte) (int, bool) { return len(p), true }
func (*writableReader) Lost(error)                   {}
func (r *writableReader) Writable()                  { r.writable() }

// BenchmarkScattered compares a body copied behind a prefix and written with it,
// and both written from where they lie.
func BenchmarkScattered(b *testing.B) {
	prefix := make([]byte, 20)
	for _, size := range []int{1 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10} {
		body := make([]byte, size)
		for _, how := range []string{"copied", "pieces"} {
			b.Run(fmt.Sprintf("body=%d/%s", size, how), func(b *testing.B) {
				near, far := pair(b)
				go io.Copy(io.Discard, far) //nolint:errcheck // it ends with the connection
				g := &Group{}
				d, ok := g.New(near, &writableReader{func() {}}).(*Descriptor)
				if !ok {
					b.Skip("this machine has no descriptors to write to")
				}
				defer d.Close(false)
				near.(*net.TCPConn).SetWriteBuffer(4 << 20)
				far.(*net.TCPConn).SetReadBuffer(4 << 20)
				buf := append(append([]byte(nil), prefix...), body...)
				total := len(prefix) + size
				for b.Loop() {
					n := 0
					if how == "copied" {
						buf = append(append(buf[:0], prefix...), body...)
						for n < total {
							k, err := d.write(buf[n:])
							if n += k; err != nil {
								b.Fatal(err)
							}
						}
						continue
					}
					n, err := d.writev([][]byte{prefix, body}, total)
					for n < total && err == nil { // the socket was full
						var k int
						k, err = d.write(buf[n:total])
						n += k
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
