package netwire

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

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
	for _, size := range []int{1 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10} {
		prefix, body := make([]byte, 20), make([]byte, size)
		buf := make([]byte, 0, len(prefix)+size)
		for how, write := range map[string]func(fd int) (int, error){
			"copied": func(fd int) (int, error) {
				buf = append(append(buf[:0], prefix...), body...)
				return unix.Write(fd, buf)
			},
			"pieces": func(fd int) (int, error) { return unix.Writev(fd, [][]byte{prefix, body}) },
		} {
			b.Run(fmt.Sprintf("body=%d/%s", size, how), func(b *testing.B) {
				fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0) // which block
				if err != nil {
					b.Fatal(err)
				}
				defer unix.Close(fds[0])
				go func() { // ends when the other end is closed
					defer unix.Close(fds[1])
					sink := make([]byte, 256<<10)
					for {
						if n, err := unix.Read(fds[1], sink); n <= 0 || err != nil {
							return
						}
					}
				}()
				for b.Loop() {
					if n, err := write(fds[0]); n != len(prefix)+size || err != nil {
						b.Fatal(n, err)
					}
				}
			})
		}
	}
}
