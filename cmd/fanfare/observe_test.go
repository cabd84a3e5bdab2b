package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	tracecollector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/transport/client"
)

// samples reads a metrics page as Prometheus does: values by name and labels, as
// name{a="b"}. A histogram is its count.
func samples(t *testing.T, url string) map[string]float64 {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for name, f := range families {
		if f.GetHelp() == "" {
			t.Errorf("%s does not say what it is", name)
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+strconv.Quote(l.GetValue()))
			}
			key := name
			if len(labels) > 0 {
				key += "{" + strings.Join(labels, ",") + "}"
			}
			switch {
			case m.GetGauge() != nil:
				values[key] = m.GetGauge().GetValue()
			case m.GetCounter() != nil:
				values[key] = m.GetCounter().GetValue()
			case m.GetHistogram() != nil:
				values[key] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return values
}

var metricsAt = regexp.MustCompile(`(?m)^  Metrics +(\S+)$`)

// What happens is on the metrics page.
func TestMetrics(t *testing.T) {
	up := newUpstream(t)
	up.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Eventname") == "bad" {
			w.WriteHeader(http.StatusTeapot)
		}
	}
	n := startNode(t, []string{
		"FANFARE_METRICS_LISTEN=127.0.0.1:0",
		"FANFARE_HUBS_CHAT_EVENT_HANDLERS=[{urlTemplate: '" + up.URL + "', userEventPattern: '*', systemEvents: [connect]}]",
	})
	page := metricsAt.FindStringSubmatch(n.out.String())[1]
	before := samples(t, page)
	for name, want := range map[string]float64{
		"fanfare_connections": 0, "fanfare_groups": 0, "fanfare_messages_in_total": 0, "fanfare_messages_out_total": 0,
		`fanfare_outbox_drops_total{reason="SlowClient"}`: 0, `fanfare_outbox_drops_total{reason="TotalOutbound"}`: 0,
		"fanfare_outbox_dropped_messages_total": 0, "fanfare_events_dropped_total": 0, "fanfare_requests_refused_total": 0,
		"fanfare_pending_event_bytes": 0, "fanfare_group_bytes": 0,
	} {
		if got, ok := before[name]; !ok || got != want {
			t.Errorf("at first %s is %v, %t; want %v", name, got, ok, want)
		}
	}
	for _, name := range []string{"go_goroutines", "process_open_fds"} {
		if before[name] == 0 {
			t.Errorf("no %s", name)
		}
	}

	environ := n.environ(accesskey.DevelopmentKey)
	var clients []*client.Client
	for range 2 {
		c, err := dial(t, environ, "--hub", "chat", "--group", "lobby")
		if err != nil {
			t.Fatal(err)
		}
		mustReceive[client.Connected](t, c)
		clients = append(clients, c)
	}
	clients[0].SendEvent(t.Context(), "good", text("x"), nil)
	clients[0].SendEvent(t.Context(), "bad", text("x"), nil)
	if code, _, stderr := finish(t, environ, "pub", "--hub", "chat", "--group", "lobby", "12345"); code != exitOK {
		t.Fatal(stderr)
	}
	for _, c := range clients {
		mustReceive[client.Message](t, c)
	}
	wrong := n.environ(strings.Repeat("x", 40))
	finish(t, wrong, "pub", "--hub", "chat", "--all", "x")
	dial(t, wrong, "--hub", "chat")
	clients[1].Close()
	n.signals <- syscall.SIGHUP

	var got map[string]float64
	eventually(t, "the connection's end and the reload are counted", func() bool {
		got = samples(t, page)
		return got["fanfare_connections"] == 1 && got[`fanfare_config_reloads_total{outcome="ok"}`] == 1
	})
	for name, want := range map[string]float64{
		"fanfare_hubs":                                                                  1,
		"fanfare_groups":                                                                1,
		"fanfare_group_memberships":                                                     1,
		"fanfare_connections_opened_total":                                              2,
		`fanfare_connections_ended_total{reason="Normal"}`:                              1,
		`fanfare_event_duration_seconds{event="connect",outcome="ok"}`:                  2,
		`fanfare_event_duration_seconds{event="user",outcome="ok"}`:                     1,
		`fanfare_event_duration_seconds{event="user",outcome="event.status"}`:           1,
		`fanfare_webhook_request_duration_seconds{event="user",outcome="event.status"}`: 1,
		`fanfare_auth_refusals_total{door="rest",rule="token.signature"}`:               1,
		`fanfare_auth_refusals_total{door="client",rule="token.signature"}`:             1,
		`fanfare_client_refusals_total{rule="token.signature",status="401"}`:            1,
		"fanfare_websocket_received_bytes":                                              2,
	} {
		if got[name] != want {
			t.Errorf("%s is %v; want %v", name, got[name], want)
		}
	}
	if in, out := got["fanfare_messages_in_total"], got["fanfare_messages_out_total"]; in < 1 || out < 2 {
		t.Errorf("%v messages in and %v out; want at least 1 and 2", in, out)
	}
	if in, out := got["fanfare_message_bytes_in_total"], got["fanfare_message_bytes_out_total"]; in < 5 || out < 10 {
		t.Errorf("%v bytes in and %v out; want at least 5 and 10", in, out)
	}
	rest := map[string]float64{}
	for name, value := range got {
		if strings.HasPrefix(name, "fanfare_rest_requests_total{") {
			_, status, _ := strings.Cut(name, `status="`)
			rest[status[:3]] += value
			if strings.Contains(name, `operation=""`) || strings.Contains(name, `operation="none"`) {
				t.Errorf("an operation without a name: %s", name)
			}
		}
	}
	if rest["202"] != 1 || rest["401"] != 1 {
		t.Errorf("REST requests by status: %v; want one 202 and one 401", rest)
	}
	if status, _ := get(t, strings.TrimSuffix(page, "/metrics")+"/"); status != 404 {
		t.Errorf("the metrics' port serves more than metrics: %d", status)
	}
}

// A reader that is too slow for its bounds is counted as a drop.
func TestDropsAreCounted(t *testing.T) {
	n := startNode(t, []string{
		"FANFARE_METRICS_LISTEN=127.0.0.1:0", "FANFARE_LIMITS_OUTBOUND_MESSAGES=5", "FANFARE_LIMITS_MESSAGE_BYTES=1000000",
		"FANFARE_LIMITS_OUTBOUND_BYTES=1000000",
	})
	page := metricsAt.FindStringSubmatch(n.out.String())[1]
	environ := n.environ(accesskey.DevelopmentKey)
	url := clientURL(t, environ, "--hub", "chat", "--group", "lobby")
	path := strings.TrimPrefix(url, "ws://"+n.address)
	c, err := net.Dial("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: "+n.address+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n")
	eventually(t, "the reader that will not read is there", func() bool { return samples(t, page)["fanfare_connections"] == 1 })
	sender, err := dial(t, environ, "--hub", "chat", "--role", "webpubsub.sendToGroup")
	if err != nil {
		t.Fatal(err)
	}
	big := text(strings.Repeat("x", 500_000))
	eventually(t, "the slow reader is ended and counted", func() bool {
		if err := sender.SendToGroup(t.Context(), "lobby", big, nil); err != nil {
			t.Fatal(err)
		}
		return samples(t, page)[`fanfare_outbox_drops_total{reason="SlowClient"}`] == 1
	})
	got := samples(t, page)
	if got[`fanfare_connections_ended_total{reason="SlowClient"}`] != 1 || got["fanfare_outbox_dropped_messages_total"] == 0 {
		t.Errorf("ended %v, dropped %v", got[`fanfare_connections_ended_total{reason="SlowClient"}`], got["fanfare_outbox_dropped_messages_total"])
	}
	if !strings.Contains(n.err.String(), "SlowClient") {
		t.Errorf("the log does not say why:\n%s", n.err)
	}
}

// receiver takes spans as an OpenTelemetry collector does, by OTLP over HTTP.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span
	about string // the resources' attributes
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		var in tracecollector.ExportTraceServiceRequest
		if err = errors.Join(err, proto.Unmarshal(body, &in)); err != nil || q.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", q.URL, err)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, rs := range in.ResourceSpans {
			r.about += rs.Resource.String()
			for _, ss := range rs.ScopeSpans {
				r.spans = append(r.spans, ss.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(r.Close)
	return r
}

// One trace leads from a server's request through the engine, and another one
// from a client's through the engine to the event handler, by W3C trace context.
func TestTraces(t *testing.T) {
	const code = "handler-code-hush"
	collector := newReceiver(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=testing")
	up := newUpstream(t)
	n := startNode(t, []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL,
		"FANFARE_HUBS_CHAT_EVENT_HANDLERS=[{urlTemplate: '" + up.URL + "/{event}?code=" + code + "', userEventPattern: '*', systemEvents: [connect, disconnected]}]",
	})

	// A server's request with a trace of its own.
	const serverTrace, serverSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	c, err := accesskey.ParseConnectionString("Endpoint=http://" + n.address + ";AccessKey=" + accesskey.DevelopmentKey)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, body string) {
		t.Helper()
		target := c.Endpoint + path
		signed, err := c.ServerToken(target)
		if err != nil {
			t.Fatal(err)
		}
		r, _ := http.NewRequest(method, target, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+signed)
		r.Header.Set("Content-Type", "text/plain")
		r.Header.Set("Traceparent", "00-"+serverTrace+"-"+serverSpan+"-01")
		reply, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		reply.Body.Close()
		if reply.StatusCode/100 != 2 {
			t.Fatalf("REST: %s", reply.Status)
		}
	}
	ask(http.MethodPost, "/api/hubs/chat/groups/lobby/:send", "hello")

	// A client that knocks, and raises an event.
	ann, err := dial(t, n.environ(accesskey.DevelopmentKey), "--hub", "chat")
	if err != nil {
		t.Fatal(err)
	}
	connect := up.event(t, "connect")
	if err := ann.SendEvent(t.Context(), "hi", text("x"), nil); err != nil {
		t.Fatal(err)
	}
	event := up.event(t, "hi")
	// What a server's request causes is of its trace, up to the event handler.
	ask(http.MethodDelete, "/api/hubs/chat/connections/"+ann.ConnectionID(), "")
	disconnected := up.event(t, "disconnected")
	n.signals <- syscall.SIGTERM
	if code := n.wait(t); code != exitOK {
		t.Fatalf("exit code %d: %s", code, n.err)
	}

	collector.mu.Lock()
	defer collector.mu.Unlock()
	byID := map[string]*tracepb.Span{}
	for _, s := range collector.spans {
		byID[string(s.SpanId)] = s
		if text := s.String(); strings.Contains(text, code) || strings.Contains(text, "access_token") {
			t.Errorf("a secret is in a span: %s", text)
		}
	}
	find := func(name string, trace string) *tracepb.Span {
		t.Helper()
		var names []string
		for _, s := range collector.spans {
			if s.Name == name && (trace == "" || hexOf(s.TraceId) == trace) {
				return s
			}
			names = append(names, s.Name)
		}
		t.Fatalf("no span %q of trace %q; there are %q", name, trace, names)
		return nil
	}

	door := find("POST /api/hubs/{hub}/groups/{group}/:send", serverTrace)
	if hexOf(door.ParentSpanId) != serverSpan {
		t.Errorf("the request's span does not follow its caller's: %s", hexOf(door.ParentSpanId))
	}
	if send := find("send", serverTrace); string(send.ParentSpanId) != string(door.SpanId) {
		t.Errorf("the engine's span does not follow the request's")
	}

	// Up from what the handler was told: the webhook's span, the engine's, the door's.
	for _, test := range []struct {
		got  *http.Request
		path []string
	}{
		{connect, []string{"POST " + strings.TrimPrefix(up.URL, "http://"), "event connect", "GET /client/hubs/{hub}"}},
		{event, []string{"POST " + strings.TrimPrefix(up.URL, "http://"), "event user"}},
		{disconnected, []string{
			"POST " + strings.TrimPrefix(up.URL, "http://"), "event disconnected", "close", "DELETE /api/hubs/{hub}/connections/{connectionId}",
		}},
	} {
		parts := strings.Split(test.got.Header.Get("Traceparent"), "-")
		if len(parts) != 4 {
			t.Errorf("the handler got the trace context %q", test.got.Header.Get("Traceparent"))
			continue
		}
		if test.got.URL.Query().Get("code") != code {
			t.Errorf("the handler was asked at %s, without its code", test.got.URL)
		}
		var s *tracepb.Span
		for _, one := range collector.spans {
			if hexOf(one.SpanId) == parts[2] && hexOf(one.TraceId) == parts[1] {
				s = one
			}
		}
		var path []string
		for ; s != nil; s = byID[string(s.ParentSpanId)] {
			path = append(path, s.Name)
		}
		if strings.Join(path, " < ") != strings.Join(test.path, " < ") {
			t.Errorf("the trace is %q; want %q", path, test.path)
		}
	}
	for _, want := range []string{`"fanfare"`, `"testing"`} {
		if !strings.Contains(collector.about, want) {
			t.Errorf("the resource does not say %s: %s", want, collector.about)
		}
	}
}

func hexOf(id []byte) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for _, c := range id {
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

// Nothing is traced unless the environment asks for it, and a collector that is
// not there is told of once in a while and harms nobody.
func TestNoTraces(t *testing.T) {
	for _, environ := range [][]string{nil, {"OTEL_TRACES_EXPORTER=none"}, {"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_SDK_DISABLED=true"}} {
		tracing, err := newTracing(t.Context(), (&world{Environ: environ}).getenv, nil)
		if tracing != nil || err != nil {
			t.Errorf("%v: got %v, %v; want none", environ, tracing, err)
		}
	}
	t.Setenv("OTEL_TRACES_EXPORTER", "smoke")
	if code, _, stderr := finish(t, []string{"OTEL_TRACES_EXPORTER=smoke"}, "--listen", "127.0.0.1:0"); code != exitFailed || !strings.Contains(stderr, "tracing: ") {
		t.Errorf("exit code %d: %s", code, stderr)
	}

	t.Setenv("OTEL_TRACES_EXPORTER", "otlp")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "200")
	n := startNode(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1"})
	if status, _ := get(t, "http://"+n.address+"/client/hubs/chat"); status != 400 {
		t.Errorf("status %d", status)
	}
	n.signals <- syscall.SIGTERM
	if code := n.wait(t); code != exitOK || !strings.Contains(n.err.String(), "traces were not exported") {
		t.Errorf("exit code %d: %s", code, n.err)
	}
}
