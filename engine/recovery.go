package engine

import (
	"context"
	"crypto/x509"
)

// RecoverRequest is a client that wants its logical connection back on a new wire.
type RecoverRequest struct {
	ConnID ConnID
	// Token is the reconnection token that the connection began with. A client
	// that shows it needs no other credential.
	Token string
	// Identity proves the client where the protocol has no such token: then the
	// user must be that of the connection, and Subprotocol its subprotocol.
	Identity    *Identity
	Subprotocol string
	// PeerCertificates must be those that the connection began with, if it began
	// with any.
	PeerCertificates []*x509.Certificate
}

// Recovery is a logical connection that its client may have back. Nothing has
// changed yet: without a call of Open nothing will.
type Recovery struct {
	conn *Conn
}

// Recover finds the connection that r asks for and proves r's right to it. It
// fails with CodeNotFound if there is none to be recovered (it ended, or never
// was recoverable) and with CodeForbidden if the proof does not hold; a failed
// try does no harm to the connection.
func (h *Hub) Recover(ctx context.Context, r *RecoverRequest) (*Recovery, error) {
	return nil, &Error{Code: CodeNotFound, Rule: "recovery.connection", Message: "There is no such connection to be recovered."}
}

// Subprotocol returns the one that the connection began with.
func (r *Recovery) Subprotocol() string { return r.conn.subprotocol }

// Session returns the door's own [OpenOptions].Session.
func (r *Recovery) Session() any { return nil }

// Open puts the connection onto a new wire, whose first messages are a
// KindConnected, what the far end has not acknowledged, and what has come since.
// An older wire that is still there is closed first. o is as in
// [Admission.Open]; what its members say of the connection rather than of the
// wire (Subprotocol, Numbered, Session, Details) stays as it was. If Open fails the
// connection has ended meanwhile, and sink has not been used.
func (r *Recovery) Open(sink Sink, o *OpenOptions) (*Conn, error) { return nil, errConnOver }

// AckUpTo tells that the far end has every numbered delivery up to seq, which
// need not be kept any longer. A number above the last one is as good as that.
func (c *Conn) AckUpTo(seq SequenceID) {}

// AckOne tells that the far end has the oldest numbered delivery that match
// reports true for; none is no error. match is called by the connection's shard
// and must not block.
func (c *Conn) AckOne(match func(SequenceID) bool) {}
