package engine

import (
	"context"
	"crypto/x509"
	"time"
)

// Engine, Hub, Conn: signatures that doors may rely on. (skeleton)

// New returns a running engine. See [Options].
func New(o *Options) (*Engine, error) { panic("skeleton") }

// Engine is a set of hubs.
type Engine struct{}

// Hub returns the named hub, made on first use. name must come from [ParseHubName].
func (e *Engine) Hub(name HubName) *Hub { panic("skeleton") }

// Limits returns the limits in force.
func (e *Engine) Limits() Limits { panic("skeleton") }

// Reload asks Options.Hubs again for every hub's settings; connections stay.
func (e *Engine) Reload() { panic("skeleton") }

// Stats returns a snapshot of the counters.
func (e *Engine) Stats() Stats { panic("skeleton") }

// Shutdown drains. Close cuts.
func (e *Engine) Shutdown(ctx context.Context) error { panic("skeleton") }

// Close ends every connection at once.
func (e *Engine) Close() error { panic("skeleton") }

// Stats are the engine's counters: gauges first, then totals since start.
type Stats struct {
	Hubs, Connections, Groups, Memberships int64
	QueuedMessages, QueuedBytes            int64
	MessagesIn, BytesIn                    int64 // published by clients and servers
	MessagesOut, BytesOut                  int64 // deliveries written to sinks
	Dropped                                int64 // deliveries lost to connections that were ended
	Opened, Ended                          int64
}

// Hub is the isolation scope. The methods are the server's verbs: they need no role.
type Hub struct{}

// SendOptions refine a send by a server.
type SendOptions struct {
	Excluded   []ConnID
	Filter     string // OData; see package filter
	TTL        time.Duration
	Metadata   Metadata
	Attributes any
}

func (h *Hub) Name() HubName                                                  { panic("") }
func (h *Hub) SendToAll(ctx context.Context, p Payload, o *SendOptions) error { panic("") }
func (h *Hub) SendToGroup(ctx context.Context, g GroupName, p Payload, o *SendOptions) error {
	panic("")
}
func (h *Hub) SendToUser(ctx context.Context, u UserID, p Payload, o *SendOptions) error  { panic("") }
func (h *Hub) SendToConn(ctx context.Context, id ConnID, p Payload, o *SendOptions) error { panic("") }

func (h *Hub) ConnExists(ctx context.Context, id ConnID) (bool, error)    { panic("") }
func (h *Hub) GroupExists(ctx context.Context, g GroupName) (bool, error) { panic("") }
func (h *Hub) UserExists(ctx context.Context, u UserID) (bool, error)     { panic("") }

func (h *Hub) CloseConn(ctx context.Context, id ConnID, reason string) error         { panic("") }
func (h *Hub) CloseAll(ctx context.Context, reason string, excluded ...ConnID) error { panic("") }
func (h *Hub) CloseGroup(ctx context.Context, g GroupName, reason string, excluded ...ConnID) error {
	panic("")
}
func (h *Hub) CloseUser(ctx context.Context, u UserID, reason string, excluded ...ConnID) error {
	panic("")
}

// AddToGroup: CodeNotFound if the connection does not exist. Remove* never fail for an absent target.
func (h *Hub) AddToGroup(ctx context.Context, g GroupName, id ConnID) error      { panic("") }
func (h *Hub) RemoveFromGroup(ctx context.Context, g GroupName, id ConnID) error { panic("") }
func (h *Hub) RemoveFromAllGroups(ctx context.Context, id ConnID) error          { panic("") }

// AddUserToGroup adds the user's present connections; CodeNotFound if there is none.
func (h *Hub) AddUserToGroup(ctx context.Context, g GroupName, u UserID) error      { panic("") }
func (h *Hub) RemoveUserFromGroup(ctx context.Context, g GroupName, u UserID) error { panic("") }
func (h *Hub) RemoveUserFromAllGroups(ctx context.Context, u UserID) error          { panic("") }

// AddToGroups and RemoveFromGroups act on every connection that filter selects ("" selects all).
func (h *Hub) AddToGroups(ctx context.Context, groups []GroupName, filter string) error { panic("") }
func (h *Hub) RemoveFromGroups(ctx context.Context, groups []GroupName, filter string) error {
	panic("")
}

// ListGroup returns up to limit members in order of connection id, all after the given id, and
// whether there are more.
func (h *Hub) ListGroup(ctx context.Context, g GroupName, after ConnID, limit int) ([]Member, bool, error) {
	panic("")
}

// Grant, Revoke, Permitted: CodeNotFound if the connection does not exist (Revoke: no error);
// CodeConflict over 1000 literal rules.
func (h *Hub) Grant(ctx context.Context, id ConnID, p Permission, g GroupName) error  { panic("") }
func (h *Hub) Revoke(ctx context.Context, id ConnID, p Permission, g GroupName) error { panic("") }
func (h *Hub) Permitted(ctx context.Context, id ConnID, p Permission, g GroupName) (bool, error) {
	panic("")
}

// Permission is what a role allows for a group.
type Permission uint8

// The permissions.
const (
	SendToGroup Permission = iota + 1
	JoinLeaveGroup
)

// AdmitRequest is a client that has proven its identity and wants in.
type AdmitRequest struct {
	Identity Identity
	// ConnID is the id the client chose; empty for one made by the engine.
	ConnID           ConnID
	Subprotocols     []string // offered
	Query            map[string][]string
	Header           map[string][]string
	PeerCertificates []*x509.Certificate
	// Subprotocol is set before the connect event only where the protocol is fixed (MQTT).
	Subprotocol string
	Details     any // opaque details for the connect event
}

// Admit runs the connect event and returns an admission, which must end in Open or Abandon.
func (h *Hub) Admit(ctx context.Context, r *AdmitRequest) (*Admission, error) { panic("") }

// Admission is a client that may come in, and is not yet visible.
type Admission struct{}

func (a *Admission) ConnID() ConnID      { panic("") }
func (a *Admission) UserID() UserID      { panic("") }
func (a *Admission) Subprotocol() string { panic("") } // the handler's choice; "" leaves it to the door
func (a *Admission) Details() any        { panic("") } // the handler's ConnectReply.Details

// OpenOptions describe the door's side of a connection.
type OpenOptions struct {
	Encoding    Encoding // nil: the sink wants messages, not bytes
	Subprotocol string
	// Numbered gives deliveries of KindData sequence ids.
	Numbered bool
	// WirePings: the wire has pings; the engine sends KindWirePing each HubOptions.KeepAlive and ends
	// a connection of which Heard was not called for two intervals.
	WirePings bool
	// Resume is called when a lane that was full has room again. It must not block.
	Resume func()
	// Ended is called once when the logical connection is over, whoever ended it; the sink may
	// outlive it for the closing handshake, until Sink.Close. It must not block.
	Ended func()
	// Details are opaque details for the connected and disconnected events.
	Details any
}

// Open makes the connection visible, joins its groups and raises connected. The first message
// offered to sink is KindConnected.
func (a *Admission) Open(sink Sink, o *OpenOptions) (*Conn, error) { panic("") }

// Abandon gives up: the upgrade itself failed. It raises disconnected alone.
func (a *Admission) Abandon(reason string) { panic("") }

// Conn is the server's record of a logical connection. Its methods are what a door calls.
type Conn struct{}

func (c *Conn) ID() ConnID          { panic("") }
func (c *Conn) Hub() *Hub           { panic("") }
func (c *Conn) UserID() UserID      { panic("") }
func (c *Conn) Subprotocol() string { panic("") }

// Request is one data request of a client.
type Request struct {
	Op       Op
	Group    GroupName
	Event    EventName
	AckID    AckID
	HasAck   bool // a repeated AckID is answered with CodeDuplicate, before permissions are looked at
	NoEcho   bool
	Payload  Payload
	Metadata Metadata
	TTL      time.Duration
	// Membership is opaque and stays with the membership (OpJoin).
	Membership any
	Attributes any
	// Unchecked skips the permission check (the door has its own rule).
	Unchecked bool
	// OnReply, if set, gets an event's reply instead of the engine sending it as a KindData message.
	OnReply func(*EventReply)
}

// Op says what a Request asks for.
type Op uint8

// The operations.
const (
	OpJoin Op = iota + 1
	OpLeave
	OpSend
	OpEvent
)

// Do carries r out, in the order of calls. done is called exactly once with the outcome, perhaps
// before Do returns, perhaps on another goroutine; it must not block. What the request makes the
// engine send to this connection (an event's reply) is queued before done is called. Do never
// waits; it reports false when the lane is now full: the door then stops reading until
// OpenOptions.Resume. The door must call Do from one goroutine at a time. r and what it points to belong to the engine from now on.
func (c *Conn) Do(r *Request, done func(error)) bool { panic("") }

// Post queues a message for this connection alone, behind all that was queued before.
func (c *Conn) Post(m *Message) { panic("") }

// Heard notes a sign of life; a door calls it for whatever it reads.
func (c *Conn) Heard() { panic("") }

// Writable tells that the sink has room again.
func (c *Conn) Writable() { panic("") }

// End ends the connection politely on the server's side: what is queued is flushed, then (if text
// is not empty) KindDisconnected with that text, then KindClose with code and closeText.
func (c *Conn) End(reason EndReason, code CloseCode, text, closeText string) { panic("") }

// Abort cuts the connection without a word.
func (c *Conn) Abort(reason EndReason, detail string) { panic("") }

// Gone tells that the wire is gone, or that the client said goodbye with code and text (a close
// frame: then the engine still sends KindClose in answer before Sink.Close). For a lost wire use
// CloseAbnormal.
func (c *Conn) Gone(code CloseCode, text string) { panic("") }

// SubscribeOptions describe an in-process subscriber.
type SubscribeOptions struct {
	UserID UserID
	Groups []GroupName
	Roles  []string
	// Buffer is how many messages may wait. Default Limits.OutboundMessages.
	Buffer int
}

// Subscribe opens an in-process connection: a first-class member of groups.
func (h *Hub) Subscribe(ctx context.Context, o *SubscribeOptions) (*Subscription, error) { panic("") }

// Subscription is an in-process subscriber.
type Subscription struct{}

func (s *Subscription) Conn() *Conn                                   { panic("") }
func (s *Subscription) Receive(ctx context.Context) (*Message, error) { panic("") } // CodeClosed at the end
func (s *Subscription) Close() error                                  { panic("") }

// Blocking twins of Do, for Go programs.
func (c *Conn) JoinGroup(ctx context.Context, g GroupName) error                           { panic("") }
func (c *Conn) LeaveGroup(ctx context.Context, g GroupName) error                          { panic("") }
func (c *Conn) SendToGroup(ctx context.Context, g GroupName, p Payload, noEcho bool) error { panic("") }
func (c *Conn) SendEvent(ctx context.Context, n EventName, p Payload) (*EventReply, error) { panic("") }
