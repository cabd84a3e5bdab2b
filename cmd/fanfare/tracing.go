package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/fanfare/fanfare/engine"
)

// tracing makes traces that cross REST, the engine and event handlers (W3C Trace
// Context), as the usual OTEL_* variables say. A nil *tracing makes none.
type tracing struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// newTracing returns nil if the environment asks for no traces: it names neither
// an exporter nor an endpoint, or switches the SDK off.
func newTracing(ctx context.Context, getenv func(string) string, log *slog.Logger) (*tracing, error) {
	exporter := getenv("OTEL_TRACES_EXPORTER")
	asked := exporter != "" || getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	if !asked || exporter == "none" || strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return nil, nil
	}
	spans, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	module, _ := version()
	// What the environment says of the service comes last and wins.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceName("fanfare"), semconv.ServiceVersion(module)), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("tracing: describe the service: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(loggedExporter{spans, log}), sdktrace.WithResource(about))
	return &tracing{provider, provider.Tracer("github.com/fanfare/fanfare")}, nil
}

// shutdown sends what has been gathered.
func (t *tracing) shutdown(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// loggedExporter tells the node's log of failures, which the SDK would tell a
// global of its own.
type loggedExporter struct {
	sdktrace.SpanExporter
	log *slog.Logger
}

func (e loggedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.Warn("traces were not exported", "spans", len(spans), "error", err)
	}
	return nil
}

func (t *tracing) httpOptions() []otelhttp.Option {
	return []otelhttp.Option{
		otelhttp.WithTracerProvider(t.provider),
		otelhttp.WithMeterProvider(noop.NewMeterProvider()), // Prometheus has the numbers
		// No baggage: it would carry what strangers write to event handlers.
		otelhttp.WithPropagators(propagation.TraceContext{}),
	}
}

// door makes a span of each request to the doors.
func (t *tracing) door(next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	return otelhttp.NewHandler(next, "request", append(t.httpOptions(),
		otelhttp.WithFilter(func(r *http.Request) bool { return r.URL.Path != "/healthz" && r.URL.Path != "/readyz" }),
		// A client may be anyone: its trace is linked to, not continued.
		otelhttp.WithPublicEndpointFn(func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/client") }),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
			switch {
			case r.Pattern != "":
				return r.Method + " " + r.Pattern
			case strings.HasPrefix(r.URL.Path, "/client/"):
				return r.Method + " /client/hubs/{hub}"
			}
			return r.Method
		}),
	)...)
}

// span is the engine's observer: one span for each operation.
func (t *tracing) span(ctx context.Context, name string, hub engine.HubName) (context.Context, func(error)) {
	ctx, span := t.tracer.Start(ctx, name, trace.WithAttributes(attribute.String("fanfare.hub", string(hub))))
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, outcome(err))
		}
		span.End()
	}
}

// wholeURL is the context's key of the URL that shownURL hides the query of.
type wholeURL struct{}

// upstream makes a span of each request to an event handler, and hands its
// context on. The span shows no query, since codes that open handlers stand there.
func (t *tracing) upstream(base http.RoundTripper) http.RoundTripper {
	if t == nil {
		return base
	}
	traced := otelhttp.NewTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
		whole := r.Clone(r.Context())
		whole.URL = r.Context().Value(wholeURL{}).(*url.URL)
		return base.RoundTrip(whole)
	}), append(t.httpOptions(), otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
		return r.Method + " " + r.URL.Host
	}))...)
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		shown := r.WithContext(context.WithValue(r.Context(), wholeURL{}, r.URL))
		u := *r.URL
		u.RawQuery, u.ForceQuery, u.User, u.Fragment = "", false, nil, ""
		shown.URL = &u
		return traced.RoundTrip(shown)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// outcome says in one word how something ended: "ok", the rule of an error, or
// its code.
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	if e, ok := errors.AsType[*engine.Error](err); ok && e.Rule != "" {
		return e.Rule
	}
	return strings.ReplaceAll(engine.CodeOf(err).String(), " ", "_")
}
