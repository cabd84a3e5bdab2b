package websocket

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// recover gives a client its connection back, in the subprotocol that it began
// with, which the client must offer: a server may select none but those offered
// (RFC 6455 section 4.2.2), and a client that fails the handshake for that has lost
// the wire that it had. The reconnection token is all the proof there is: an access
// token may have expired meanwhile. Nothing happens to the connection, or to the wire
// that it has, before the answer to this handshake is written.
func (k *knock) recover(id engine.ConnID, offered []string) error {
	r, err := k.findRecovery(id, lastFold(k.query, "awps_reconnection_token"))
	if err != nil {
		switch engine.CodeOf(err) {
		case engine.CodeInternal, engine.CodeUnavailable, engine.CodeClosed, engine.CodeTimeout:
			return err // the connection may be there all the same: the client is to try again
		default:
			return k.refuseRecovery(err, transport.ReasonNotRecovered, offered)
		}
	}
	protocol, ok := spelled(r.Subprotocol(), offered)
	if !ok {
		err := engine.Errorf(engine.CodeUnsupported, "recovery.subprotocol",
			"The connection %s speaks %s, and its client offers %s.", excerpt(string(id)), r.Subprotocol(), excerpt(strings.Join(offered, ", ")))
		return k.refuseRecovery(err, strings.TrimSuffix(transport.ReasonNotRecovered, ".")+": its subprotocol, "+r.Subprotocol()+", was not offered.", offered)
	}
	c, deflated, err := k.acceptDeflated(protocol)
	if err != nil {
		return nil //nolint:nilerr // accept has told the log; the connection waits for another try
	}
	o := k.session(protocol, rawMode{}, deflated)
	if err := k.h.open(c, o, func(s *transport.Session, w transport.Wire) error {
		return s.Recover(r, w, o)
	}); err != nil {
		k.note(http.StatusSwitchingProtocols, err) // it ended this moment; another try will be told so
	}
	return nil
}

// findRecovery asks the hub for the connection. It is counted with the
// authentications, which it takes the place of.
func (k *knock) findRecovery(id engine.ConnID, token string) (*engine.Recovery, error) {
	h := k.h
	defer h.knocking.Add(-1)
	if h.knocking.Add(1) > int64(h.o.UnauthenticatedConnections) {
		return nil, k.crowded()
	}
	none := func(saw string) error {
		return &engine.Error{
			Code: engine.CodeNotFound, Rule: "recovery.connection", Target: "connectionId",
			Message: "There is no such connection to be recovered at this door.", Detail: saw,
		}
	}
	hub := h.engine.FindHub(k.hub)
	if hub == nil { // and a stranger does not make one
		return nil, none("the hub has not been used")
	}
	ctx, cancel := context.WithTimeout(k.r.Context(), h.o.HandshakeTimeout)
	defer cancel()
	r, err := hub.Recover(ctx, &engine.RecoverRequest{ConnID: id, Token: token, PeerCertificates: k.certs})
	if err != nil {
		return nil, err
	}
	if p, ok := subprotocol.Find(r.Subprotocol()); !ok || !p.Reliable {
		return nil, none("the connection speaks " + excerpt(r.Subprotocol()))
	}
	return r, nil
}

// refuseRecovery completes the handshake, so that the client can be told reason. why
// is for the log.
func (k *knock) refuseRecovery(why error, reason string, offered []string) error {
	h := k.h
	// Not counted with those that are being authenticated: whoever lets the end of
	// this wait would keep them out.
	defer h.leaving.Add(-1)
	crowded := h.leaving.Add(1) > int64(h.o.UnauthenticatedConnections)
	c, err := k.accept(firstKnown(offered), "")
	if err != nil {
		return nil // accept has told the log, and there is nobody left to answer
	}
	k.note(http.StatusSwitchingProtocols, why)
	c.SetDeadline(time.Now().Add(h.limits.CloseTimeout))
	body := appendClose(nil, engine.ClosePolicy, reason)
	if _, err := c.Write(append(appendHeader(c.answer, ws.OpClose, false, len(body)), body...)); err == nil && !crowded {
		awaitClose(c, reader{}, c.rest)
	}
	c.Close()
	return nil
}

// awaitClose reads until the client has said goodbye or is gone. Closing first,
// with bytes unread, would make the kernel reset the connection, and the client
// might never see the close frame.
func awaitClose(c net.Conn, r reader, rest []byte) {
	r.mute = true
	var buf [512]byte
	for p, reads := rest, 0; reads < maxGoodbyeReads; {
		n, more, bad := r.feed(p, goodbye{})
		if bad != nil || !more {
			return
		}
		if p = p[n:]; len(p) > 0 {
			continue
		}
		n, err := c.Read(buf[:])
		if err != nil {
			return
		}
		p = buf[:n]
		reads++
	}
}

// maxGoodbyeReads is how often a client is read for its close frame, whatever else
// it sends.
const maxGoodbyeReads = 1000

// goodbye is a receiver that waits for a close frame.
type goodbye struct{}

func (goodbye) message(ws.OpCode, bool, []byte) bool { return true }
func (goodbye) control(op ws.OpCode, _ []byte) bool  { return op != ws.OpClose }
func (goodbye) refuse(*frameError)                   {}
