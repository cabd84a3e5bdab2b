package main

import (
	"context"
	"log"
	"log/slog"
	"regexp"
	"strings"
)

// httpError is a line that an http.Server logs, by its beginning.
type httpError struct {
	begins string
	rule   string
	level  slog.Level
	text   string
}

// httpErrorLines are the lines that clients can cause. The rules are those of the log and of
// the metric of refused connections.
var httpErrorLines = []httpError{
	{"http: TLS handshake error", "tls.handshake", slog.LevelInfo, "a TLS handshake failed"},
	{"http2: server connection error", "http2.protocol", slog.LevelInfo, "an HTTP/2 connection was closed for what it sent"},
	{"http2: panic serving", "http.panic", slog.LevelError, "a request was not served: the program failed"},
	{"http2: ", "http2", slog.LevelInfo, "HTTP/2"},
	{"timeout waiting for ", "http2.silent", slog.LevelInfo, "an HTTP/2 connection was silent"},
	{"http: panic serving", "http.panic", slog.LevelError, "a request was not served: the program failed"},
	{"", "http", slog.LevelError, "HTTP"},
}

// remoteAddress finds the address in such a line.
var remoteAddress = regexp.MustCompile(`\b(?:from|from client|serving) (\[[^\]]+\]:\d+|[^\s:]+:\d+)`)

// httpErrors returns what an http.Server says of its troubles. The lines have a rule, and
// the address if they name one, so that they are sampled as refusals are.
func (n *node) httpErrors(l *slog.Logger) *log.Logger {
	return log.New(writer(func(p []byte) {
		text := strings.TrimSpace(string(p))
		if strings.HasSuffix(text, "use of closed network connection") {
			return // why it was closed has been logged
		}
		for _, e := range httpErrorLines {
			if !strings.HasPrefix(text, e.begins) {
				continue
			}
			remote := ""
			if found := remoteAddress.FindStringSubmatch(text); found != nil {
				remote = found[1]
			}
			n.metrics.connectionRefusals.WithLabelValues(e.rule).Inc()
			l.Log(context.Background(), e.level, e.text, "rule", e.rule, "remote", remote, "error", text)
			return
		}
	}), "", 0)
}

// writer is an io.Writer of what is written at once.
type writer func([]byte)

// Write implements io.Writer.
func (f writer) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
