package transport

import (
	"context"

	"github.com/fanfare/fanfare/engine"
)

// Authenticator says who is knocking at a door for clients.
type Authenticator interface {
	// Authenticate returns who c's sender is. To refuse it returns an
	// [*engine.Error] whose Code says how ([engine.CodeUnauthenticated]: the
	// credentials are missing or do not hold; [engine.CodeInvalid]: they hold,
	// but ask for something impossible), whose Rule names the rule and whose
	// Message is safe to show to a stranger. Any other error is a failure of
	// ours. ctx ends with the client's request or with the door's handshake
	// time. It may be called concurrently.
	Authenticate(ctx context.Context, c engine.Credentials) (engine.Identity, error)
}

// AuthenticatorFunc is an [Authenticator] made of a function.
type AuthenticatorFunc func(context.Context, engine.Credentials) (engine.Identity, error)

// Authenticate calls f.
func (f AuthenticatorFunc) Authenticate(ctx context.Context, c engine.Credentials) (engine.Identity, error) {
	return f(ctx, c)
}

// Wire is one physical connection: bytes go out through the methods of
// [engine.Sink], which the connection's shard calls, and come in through the
// door that owns the wire.
type Wire interface {
	engine.Sink
	// Resume goes on reading after the door stopped because a [Session] wanted
	// no more. It may be called at any time, by any goroutine, also when nothing
	// was stopped, and does not block.
	Resume()
}
