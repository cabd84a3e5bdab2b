// Package sampling bounds how much refusals can write to a log.
//
// A client without credentials can be refused as often as it can send requests, and each
// refusal is a line. [Handler] is a [slog.Handler] that samples such lines: of each rule
// and address prefix the first few in an interval are logged whole, the others are
// counted, and one line at the end of the interval says how many were left out. Lines
// that are not about a refusal pass unchanged.
//
// A line is about a refusal if it has a top-level attribute "rule", which names the rule
// that refused, or "remote", which is the address that was refused. The handlers of
// transport/websocket, transport/mqtt and transport/rest log their refusals with both
// wherever they know both. Give them a logger over a Handler:
//
//	log := slog.New(sampling.New(slog.NewTextHandler(os.Stderr, nil), nil))
//	rest.NewHandler(e, auth, &rest.Options{Logger: log})
//
// Metrics are not sampled: the handlers' observers hear of each refusal.
package sampling
