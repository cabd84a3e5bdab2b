package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestHTTPErrorsNameTheirRule(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"http: TLS handshake error from 192.0.2.1:4711: EOF", `level=INFO msg="a TLS handshake failed" rule=tls.handshake remote=192.0.2.1:4711`},
		{"http: TLS handshake error from [2001:db8::1]:4711: EOF", `rule=tls.handshake remote=[2001:db8::1]:4711`},
		{"http2: server connection error from 192.0.2.1:4711: connection error: PROTOCOL_ERROR", `level=INFO msg="an HTTP/2 connection was closed for what it sent" rule=http2.protocol remote=192.0.2.1:4711`},
		{"http2: server: error reading preface from client 192.0.2.1:4711: bogus greeting", `level=INFO msg=HTTP/2 rule=http2 remote=192.0.2.1:4711`},
		{"http2: received GOAWAY [FrameHeader GOAWAY len=8], starting graceful shutdown", `level=INFO msg=HTTP/2 rule=http2 remote=""`},
		{"timeout waiting for SETTINGS frames from 192.0.2.1:4711", `rule=http2.silent remote=192.0.2.1:4711`},
		{"http: panic serving 192.0.2.1:4711: oh\ngoroutine 1", `level=ERROR msg="a request was not served: the program failed" rule=http.panic remote=192.0.2.1:4711`},
		{"http: Accept error: no descriptors; retrying in 5ms", `level=ERROR msg=HTTP rule=http remote=""`},
		{"http: TLS handshake error from 192.0.2.1:4711: read tcp: use of closed network connection", ""},
	} {
		var out bytes.Buffer
		n := &node{metrics: newMetrics()}
		n.httpErrors(slog.New(slog.NewTextHandler(&out, nil))).Print(test.line)
		if got := out.String(); !strings.Contains(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%s: %s; want %s", test.line, got, test.want)
		}
	}
}
