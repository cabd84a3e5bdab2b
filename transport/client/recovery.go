package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// ackInterval is the time from one acknowledgement of what was received to the
// next, where it is not much ([hurry]).
const ackInterval = time.Second

// recover puts a connection whose wire was lost onto a new one, or says why it gave
// up: with the reason of the loss itself, if nothing was to be tried. A server that
// has said [Disconnected] is asked once, since it means, as a rule, what it says.
func (c *Client) recover(k *conn, lost error) (*wire, error) {
	if !k.reliable || k.secret() == "" || c.opts.RecoveryWindow < 0 || c.ctx.Err() != nil || terminal(lost) {
		return nil, lost
	}
	deadline := time.Now().Add(c.opts.RecoveryWindow)
	ctx, cancel := context.WithDeadline(c.ctx, deadline)
	defer cancel()
	err := errors.New("client: the wires are lost too fast")
	for {
		// The first attempt is made at once, unless the wire that was lost came of
		// an attempt itself.
		next := k.tried.Add(c.opts.RecoveryInterval)
		if !next.Before(deadline) {
			break
		}
		if wait := time.Until(next); wait > 0 && !pause(ctx, wait) {
			return nil, ErrClosed
		}
		k.tried = time.Now()
		var w *wire
		if w, err = c.revive(ctx, k); err == nil {
			k.dismissed = false
			return w, nil
		}
		if k.dismissed || terminal(err) {
			return nil, &RecoveryError{Lost: lost, Err: err}
		}
	}
	err = fmt.Errorf("client: no success within %v, at last: %w", c.opts.RecoveryWindow, err)
	return nil, &RecoveryError{Lost: lost, Err: err}
}

// errAnother is a server that does not know recovery.
var errAnother = errors.New("client: the server made another connection instead of recovering the one that was lost")

// revive makes one attempt. A server need not say anything to a client that has its
// connection back, so it is asked: what it says first, unless it is a close, is the
// proof.
func (c *Client) revive(ctx context.Context, k *conn) (*wire, error) {
	target, err := recoveryURL(k)
	if err != nil {
		return nil, err
	}
	ping, err := c.protocol.encode(&request{verb: verbPing})
	if err != nil {
		return nil, err
	}
	w, f, err := c.first(ctx, target, ping)
	if err != nil {
		return nil, err
	}
	w.conn = k
	if f.word == wordConnected && f.hello.ConnectionID != k.hello.ConnectionID {
		w.end(errAnother)
		return nil, errAnother
	}
	w.awaitPong() // that of the question is nobody else's
	w.held = f
	return w, nil
}

// recoveryURL returns where k is recovered. Its access token stays where it is: no
// server looks at it.
func recoveryURL(k *conn) (string, error) {
	u, err := url.Parse(k.url)
	if err != nil {
		return "", errors.New("client: dial: the URL cannot be parsed")
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += url.Values{
		"awps_connection_id":      {k.hello.ConnectionID},
		"awps_reconnection_token": {k.secret()},
	}.Encode()
	return u.String(), nil
}

// terminal reports whether err ends a connection for good: it was closed in a way
// that says so, by either side.
func terminal(err error) bool {
	if errors.Is(err, errAnother) {
		return true
	}
	var closed *CloseError
	if !errors.As(err, &closed) {
		return false
	}
	switch closed.Code {
	case engine.CloseNormal, engine.CloseProtocolError, engine.CloseUnsupported, engine.CloseInvalidData, engine.ClosePolicy, engine.CloseTooLarge:
		return true
	}
	return false
}

// resend puts a recovered connection's wire in order and opens it: it says what was
// received, since that may have been lost with the wire before, and writes again
// what waits for an ack.
func (c *Client) resend(w *wire) {
	w.conn.acked.Store(0)
	c.acknowledge(w)
	c.open(w, w.conn.unanswered(w))
}

// acknowledge tells the server what was received, if there is news.
func (c *Client) acknowledge(w *wire) {
	seen := w.conn.seen.Load()
	if seen <= w.conn.acked.Load() {
		return
	}
	b, err := c.protocol.encode(&request{verb: verbSequenceAck, seq: seen})
	if err == nil && w.write(context.Background(), c.protocol.op(), b) == nil {
		w.conn.acked.Store(seen)
	}
}
