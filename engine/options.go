package engine

import (
	"context"
	"log/slog"
	"time"
)

// Options are the knobs of an [Engine]. Nil and zero mean the defaults.
type Options struct {
	// NodeID names this engine among those that share a backplane. Default: random.
	NodeID NodeID
	// Shards is the number of writer shards. Default: GOMAXPROCS.
	Shards int
	// Backplane joins the engine to others; nil for a lone node. The engine
	// closes it.
	Backplane Backplane
	// Hubs returns the settings of a hub. It is called when the hub is first
	// used and again after [Engine.Reload]; nil, and a nil result, mean defaults.
	Hubs func(HubName) *HubOptions
	// Limits bound what clients can make the engine hold.
	Limits Limits
	// Logger gets a line for each refusal and failure. Default: discard.
	Logger *slog.Logger
	// Observer is told what metrics and traces count.
	Observer Observer
	// Clock is time. Default: the system's.
	Clock Clock
}

// Limits bound what the engine holds. Zero means the default; the defaults are
// those of the node.
type Limits struct {
	// MessageBytes bounds one message. Default 1 MiB. Doors enforce it.
	MessageBytes int
	// Connections bounds the open connections. Default: no bound.
	Connections int
	// OutboundMessages and OutboundBytes bound what waits for one connection, or
	// was not acknowledged by it. Defaults 1000 and 16 MiB.
	OutboundMessages int
	OutboundBytes    int
	// TotalOutboundBytes bounds what waits for all connections together; over
	// it the largest laggard is ended first. Default 1 GiB.
	TotalOutboundBytes int
	// GroupsPerConnection bounds the groups of one connection. Default 10,000.
	GroupsPerConnection int
	// GroupBytesPerConnection bounds the names of one connection's groups, with the
	// options of its memberships. Default 1 MiB, at most 1 GiB.
	GroupBytesPerConnection int
	// TotalGroupBytes bounds what all groups and memberships hold, by an estimate:
	// names once for each group. Default 512 MiB.
	TotalGroupBytes int
	// PendingEvents bounds the requests that wait in one connection's lane, and
	// the calls under way at one handler. Default 1024.
	PendingEvents int
	// MessageTimeout bounds the time from a message's first byte to its last one,
	// pings between its fragments or not. Default 60 s; negative for no bound.
	MessageTimeout time.Duration
	// TotalUnfinishedBytes bounds what is kept of all messages that have not
	// arrived completely; over it the connection with the largest is ended first.
	// Default 256 MiB.
	TotalUnfinishedBytes int
	// ControlRate bounds what a client may send in a second that carries no data:
	// pings of the WebSocket and of its subprotocol, empty fragments and messages,
	// acknowledgements of nothing new. Twice as many may come at once. Above it the
	// connection is read more slowly, and ended if it goes on. Default 100. Doors
	// enforce it.
	ControlRate int
	// PendingEventBytes bounds the bytes of one connection's requests that wait in
	// its lane, and of its event under way. From half of it on, and likewise from
	// half of the three bounds below, its transport is asked to stop reading, and
	// goes on when less than a quarter is used or all of the connection's requests
	// are done. At the bound a request is refused with CodeUnavailable.
	// Default: eight messages, at least 8 MiB.
	PendingEventBytes int
	// PendingEventBytesPerUser bounds such bytes for all connections of a user in
	// one hub; of clients without a user, for those of an IPv4 /24 or an IPv6 /56
	// ([AdmitRequest.RemoteAddr]). Events of connections that have ended count until
	// they are done, and so do connect, connected and disconnected events. At the
	// bound, and at the two bounds below, new connections are refused; from half of
	// it on the events of connections that have ended are dropped.
	// Default: four times PendingEventBytes, at most half of PendingEventBytesPerHub.
	PendingEventBytesPerUser int
	// PendingEventBytesPerHub bounds them for a hub. Default: half of
	// TotalPendingEventBytes.
	PendingEventBytesPerHub int
	// TotalPendingEventBytes bounds them for all hubs together. Default: 32 times
	// PendingEventBytes.
	TotalPendingEventBytes int
	// EventTimeout bounds one call of an event handler, and how long the requests
	// of a connection that has ended are carried out. Default 100 s.
	EventTimeout time.Duration
	// CloseTimeout bounds how long a polite end may take: flushing what is
	// queued and waiting for the far end to close. Default 5 s.
	CloseTimeout time.Duration
}

// HubOptions are the settings of one hub.
type HubOptions struct {
	// Handlers are tried in order; the first that matches gets the event.
	Handlers []HandlerRule
	// Listeners all get the events they match.
	Listeners []ListenerRule
	// KeepAlive is the interval of pings on a wire that has them. A connection
	// not heard of for two intervals is ended. Default 20 s, negative for never.
	KeepAlive time.Duration
}

// Observer is told what happens, for metrics and traces. Any member may be nil.
// The functions are called on hot paths and must not block.
type Observer struct {
	// ConnOpened and ConnEnded bracket a connection's life. reason is one of
	// the EndReason texts.
	ConnOpened func(HubName)
	ConnEnded  func(h HubName, code CloseCode, reason EndReason)
	// Event is called after a handler answered: event is the system event's
	// name, or "user" for user events.
	Event func(h HubName, event string, took time.Duration, err error)
	// Span is called when the engine begins an operation on behalf of a client
	// or of a server; it may put a trace into the context. done ends the span.
	Span func(ctx context.Context, name string, h HubName) (_ context.Context, done func(error))
}

// EndReason says in one word why a connection ended, for logs and metrics.
type EndReason string

// The reasons.
const (
	EndClient      EndReason = "Normal"            // the client closed
	EndLost        EndReason = "Lost"              // the wire broke
	EndServer      EndReason = "ClosedByAppServer" // an application server closed it
	EndShutdown    EndReason = "ServiceReload"     // the node drains
	EndPingTimeout EndReason = "PingTimeout"       // nothing was heard in two keep-alive intervals
	EndSlow        EndReason = "SlowClient"        // over its outbound bounds
	EndOverload    EndReason = "TotalOutbound"     // the largest laggard while all were over theirs
	EndProtocol    EndReason = "ProtocolError"     // it broke its protocol's rules
	EndEvent       EndReason = "EventFailed"       // a raw client's event failed
	EndTakenOver   EndReason = "TakenOver"         // a newer connection claimed its id
	EndHandedOver  EndReason = "HandedOver"        // it goes on elsewhere; nobody is told of an end

	EndMessageTimeout EndReason = "MessageTimeout"  // a message was not complete in time
	EndUnfinished     EndReason = "TotalUnfinished" // the largest unfinished message while all were over their bound
	EndControlRate    EndReason = "ControlRate"     // it went on sending too many frames without data
)

// Clock is time as the engine sees it.
type Clock interface {
	// Now returns the current time.
	Now() time.Time
	// AfterFunc calls f in its own goroutine once d has passed, unless stop is
	// called first.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

func (l Limits) withDefaults() Limits {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&l.MessageBytes, 1<<20)
	def(&l.OutboundMessages, 1000)
	def(&l.OutboundBytes, 16<<20)
	def(&l.TotalOutboundBytes, 1<<30)
	def(&l.GroupsPerConnection, 10_000)
	def(&l.PendingEvents, 1024)
	def(&l.TotalUnfinishedBytes, 256<<20)
	def(&l.ControlRate, 100)
	if l.MessageTimeout == 0 {
		l.MessageTimeout = 60 * time.Second
	}
	def(&l.GroupBytesPerConnection, 1<<20)
	l.GroupBytesPerConnection = min(l.GroupBytesPerConnection, 1<<30)
	def(&l.TotalGroupBytes, 512<<20)
	def(&l.PendingEventBytes, max(8<<20, 8*l.MessageBytes))
	def(&l.TotalPendingEventBytes, 32*l.PendingEventBytes)
	def(&l.PendingEventBytesPerHub, max(1, l.TotalPendingEventBytes/2))
	def(&l.PendingEventBytesPerUser, max(1, min(4*l.PendingEventBytes, l.PendingEventBytesPerHub/2)))
	if l.EventTimeout == 0 {
		l.EventTimeout = 100 * time.Second
	}
	if l.CloseTimeout == 0 {
		l.CloseTimeout = 5 * time.Second
	}
	return l
}
