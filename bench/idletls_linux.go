package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/transport/client"
)

// idleTLS is idle over TLS. The connections are crypto/tls's; of their memory
// only the node's end is measured.
func (b *bench) idleTLS(members int) error {
	for round := range b.rounds {
		b.say("idle-tls/members=%d, round %d of %d", members, round+1, b.rounds)
		if err := b.idleTLSOnce(members); err != nil {
			return fmt.Errorf("idle-tls: %w", err)
		}
	}
	return nil
}

func (b *bench) idleTLSOnce(members int) error {
	c, err := b.node(tlsVariable + "=1")
	if err != nil {
		return err
	}
	defer c.stop()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(c.Roots)) {
		return errors.New("the node's certificate cannot be read")
	}
	config := &tls.Config{RootCAs: roots}
	first := &tlsClients{}
	if err := first.connect(b, c, 1, config); err != nil {
		return err
	}
	first.close()
	g := goal{id: "T6b", what: fmt.Sprintf("RSS for each idle joined connection over TLS, %d of them", members), unit: "B", most: 12 << 10}
	return b.memory(c, "IdleTLS", members, g, func() (func(), error) {
		all := &tlsClients{}
		return all.close, all.connect(b, c, members, config)
	})
}

// tlsClients are idle connections over TLS.
type tlsClients struct {
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []io.Closer
}

func (t *tlsClients) connect(b *bench, c *child, n int, config *tls.Config) error {
	next := make(chan int)
	errs := make(chan error, dialers)
	for range dialers {
		go func() {
			for i := range next {
				if err := t.dial(b, c, i, config); err != nil {
					errs <- fmt.Errorf("connection %d: %w", i, err)
					return
				}
			}
			errs <- nil
		}()
	}
	var err error
	done := 0
	for i := 0; i < n && err == nil; {
		select {
		case next <- i:
			i++
		case err = <-errs:
			done++
		}
	}
	close(next)
	for ; done < dialers; done++ {
		err = errors.Join(err, <-errs)
	}
	return err
}

func (t *tlsClients) dial(b *bench, c *child, i int, config *tls.Config) error {
	d := ws.Dialer{TLSConfig: config, Protocols: []string{client.JSON}}
	conn, br, _, err := d.Dial(b.ctx, "wss://"+c.Addr.String()+c.clientPath(i))
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.conns = append(t.conns, conn)
	t.mu.Unlock()
	if br == nil {
		br = bufio.NewReaderSize(conn, 512)
	}
	if _, err := ws.ReadFrame(br); err != nil { // the connected message
		return err
	}
	if err := ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte(`{"type":"joinGroup","group":"bench","ackId":1}`)))); err != nil {
		return err
	}
	f, err := ws.ReadFrame(br)
	if err != nil {
		return err
	}
	if _, success, ok := ackOf(f.Payload); !ok || !success {
		return fmt.Errorf("join: the server answered %.200q", f.Payload)
	}
	t.wg.Go(func() { // ends with the connection
		for {
			f, err := ws.ReadFrame(br)
			if err != nil {
				return
			}
			if f.Header.OpCode == ws.OpPing {
				ws.WriteFrame(conn, ws.MaskFrame(ws.NewPongFrame(f.Payload))) // a dead connection is seen in the node's count
			}
		}
	})
	return nil
}

func (t *tlsClients) close() {
	for _, c := range t.conns {
		c.Close()
	}
	t.wg.Wait()
}
