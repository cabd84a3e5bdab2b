package main

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/keyvault"
	"github.com/fanfare/fanfare/authn/managed"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/rest"
	"github.com/fanfare/fanfare/transport/webhook"
	"github.com/fanfare/fanfare/transport/websocket"
)

// metrics counts for Prometheus. Labels take their values from the code alone,
// never from what strangers send, so that nobody can make more series.
type metrics struct {
	registry *prometheus.Registry

	ended, drops     *prometheus.CounterVec
	events, upstream *prometheus.HistogramVec
	authRefusals     *prometheus.CounterVec
	clientRefusals   *prometheus.CounterVec
	// connectionRefusals counts what was refused before it was a request, or beside requests.
	connectionRefusals *prometheus.CounterVec
	received           prometheus.Histogram
	restRequests       *prometheus.CounterVec
	restSeconds        *prometheus.HistogramVec
	configReloads      *prometheus.CounterVec
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	calls := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 100}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		ended:    counter("fanfare_connections_ended_total", "Connections that ended, by reason.", "reason"),
		drops: counter("fanfare_outbox_drops_total",
			"Connections that were ended over what waited for them: SlowClient over its own bounds, TotalOutbound as the largest while all together were over theirs.", "reason"),
		events:             histogram("fanfare_event_duration_seconds", "Time an event handler took to answer, retries included, by event and outcome (ok, or the rule that failed).", calls, "event", "outcome"),
		upstream:           histogram("fanfare_webhook_request_duration_seconds", "Time of one HTTP exchange with an event handler, by event and outcome.", calls, "event", "outcome"),
		authRefusals:       counter("fanfare_auth_refusals_total", "Requests refused with 401 or 403, by door (client, rest) and rule.", "door", "rule"),
		clientRefusals:     counter("fanfare_client_refusals_total", "Clients that were not let in, by status and rule.", "status", "rule"),
		connectionRefusals: counter("fanfare_connection_refusals_total", "Connections that were closed, or failed, before they had authenticated or for more than their requests, by rule.", "rule"),
		received: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fanfare_websocket_received_bytes", Help: "Sizes of the messages of WebSocket clients.",
			Buckets: prometheus.ExponentialBuckets(64, 4, 8),
		}),
		restRequests:  counter("fanfare_rest_requests_total", "REST requests, by operation and status.", "operation", "status"),
		restSeconds:   histogram("fanfare_rest_request_duration_seconds", "Time of a REST request, by operation.", calls, "operation"),
		configReloads: counter("fanfare_config_reloads_total", "Times that the settings were read again, by outcome (ok, failed).", "outcome"),
	}
	for _, reason := range []engine.EndReason{engine.EndSlow, engine.EndOverload} {
		m.drops.WithLabelValues(string(reason)) // shown from the start, as zero
	}
	for _, reason := range []engine.EndReason{engine.EndMessageTimeout, engine.EndUnfinished, engine.EndControlRate} {
		m.ended.WithLabelValues(string(reason))
	}
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "fanfare_build_info", Help: "1, labelled with the build.", ConstLabels: buildLabels(),
	}, func() float64 { return 1 })
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build,
		m.ended, m.drops, m.events, m.upstream, m.authRefusals, m.clientRefusals, m.connectionRefusals, m.received, m.restRequests, m.restSeconds, m.configReloads,
	)
	return m
}

func buildLabels() prometheus.Labels {
	module, commit := version()
	return prometheus.Labels{"version": module, "commit": commit}
}

// page serves what has been counted.
func (m *metrics) page() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, Registry: m.registry}))
	return mux
}

// engine returns what the engine tells.
func (m *metrics) engine(t *tracing) engine.Observer {
	o := engine.Observer{
		ConnEnded: func(_ engine.HubName, _ engine.CloseCode, reason engine.EndReason) {
			m.ended.WithLabelValues(string(reason)).Inc()
			if reason == engine.EndSlow || reason == engine.EndOverload {
				m.drops.WithLabelValues(string(reason)).Inc()
			}
		},
		Event: func(_ engine.HubName, event string, took time.Duration, err error) {
			m.events.WithLabelValues(event, outcome(err)).Observe(took.Seconds())
		},
	}
	if t != nil {
		o.Span = t.span
	}
	return o
}

func (m *metrics) websocket() websocket.Observer {
	return websocket.Observer{
		Refused: func(_ engine.HubName, status int, rule string) {
			m.clientRefusals.WithLabelValues(strconv.Itoa(status), rule).Inc()
			if status == http.StatusUnauthorized || status == http.StatusForbidden {
				m.authRefusals.WithLabelValues("client", rule).Inc()
			}
		},
		Received: func(_ engine.HubName, bytes int) { m.received.Observe(float64(bytes)) },
	}
}

func (m *metrics) rest() rest.Observer {
	return rest.Observer{
		Replied: func(operation string, status int, took time.Duration) {
			if operation == "" {
				operation = "none"
			}
			m.restRequests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
			m.restSeconds.WithLabelValues(operation).Observe(took.Seconds())
		},
		Refused: func(_, rule string) { m.authRefusals.WithLabelValues("rest", rule).Inc() },
	}
}

func (m *metrics) webhook(a webhook.Attempt) {
	m.upstream.WithLabelValues(a.Event, a.Outcome).Observe(a.Took.Seconds())
}

// watch makes the page show the counters of e.
func (m *metrics) watch(e *engine.Engine) { m.registry.MustRegister(&engineCollector{e}) }

// watchListener makes the page show how many connections have not authenticated.
func (m *metrics) watchListener(unauthenticated func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "fanfare_unauthenticated_connections", Help: "Open connections that have not authenticated.",
	}, func() float64 { return float64(unauthenticated()) }))
}

// watchIssuer makes the page show how the issuer of servers' tokens is.
func (m *metrics) watchIssuer(stats func() entra.Stats) {
	m.registry.MustRegister(issuerCollector(stats))
}

// issuerCollector shows an issuer's counters as they are when it is asked.
type issuerCollector func() entra.Stats

// issuerMetrics are an issuer's counters, as in engineMetrics.
var issuerMetrics = []struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*entra.Stats) float64
}{
	{desc("fanfare_entra_keys", "Keys of the Entra ID tenant that are known."), prometheus.GaugeValue, func(s *entra.Stats) float64 { return float64(s.Keys) }},
	{desc("fanfare_entra_keys_age_seconds", "Time since the tenant's keys were read; 0 if they never were."), prometheus.GaugeValue, func(s *entra.Stats) float64 {
		if s.Read.IsZero() {
			return 0
		}
		return time.Since(s.Read).Seconds()
	}},
	{desc("fanfare_entra_key_readings_total", "Attempts to read the tenant's keys."), prometheus.CounterValue, func(s *entra.Stats) float64 { return float64(s.Readings) }},
	{desc("fanfare_entra_key_reading_failures_total", "Attempts to read the tenant's keys that failed."), prometheus.CounterValue, func(s *entra.Stats) float64 { return float64(s.Failed) }},
}

// Describe implements prometheus.Collector.
func (c issuerCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range issuerMetrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c issuerCollector) Collect(ch chan<- prometheus.Metric) {
	s := c()
	for _, m := range issuerMetrics {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&s))
	}
}

// watchUsers makes the page show the counters of the users that are kept.
func (m *metrics) watchUsers(stats func() identity.Stats) {
	m.registry.MustRegister(usersCollector(stats))
}

// usersCollector shows the counters of users as they are when it is asked.
type usersCollector func() identity.Stats

// usersMetrics are the counters of users, as in engineMetrics.
var usersMetrics = []struct {
	desc  *prometheus.Desc
	value func(*identity.Stats) int64
}{
	{desc("fanfare_users_created_total", "Users that were created."), func(s *identity.Stats) int64 { return s.Created }},
	{desc("fanfare_users_deleted_total", "Users that were deleted."), func(s *identity.Stats) int64 { return s.Deleted }},
	{desc("fanfare_user_tokens_issued_total", "User access tokens that were issued."), func(s *identity.Stats) int64 { return s.Issued }},
	{desc("fanfare_user_tokens_accepted_total", "User access tokens that were shown and counted."), func(s *identity.Stats) int64 { return s.Accepted }},
	{desc("fanfare_user_revocations_total", "Times that the tokens of a user were revoked."), func(s *identity.Stats) int64 { return s.Revoked }},
}

// Describe implements prometheus.Collector.
func (c usersCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range usersMetrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c usersCollector) Collect(ch chan<- prometheus.Metric) {
	s := c()
	for _, m := range usersMetrics {
		ch <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(m.value(&s)))
	}
}

// engineCollector shows an engine's counters as they are when it is asked.
type engineCollector struct{ engine *engine.Engine }

// engineMetrics are the engine's counters: name, kind, help, and where to find it.
var engineMetrics = []struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*engine.Stats) int64
}{
	{desc("fanfare_hubs", "Hubs that were used since the start."), prometheus.GaugeValue, func(s *engine.Stats) int64 { return s.Hubs }},
	{desc("fanfare_connections", "Open connections."), prometheus.GaugeValue, func(s *engine.Stats) int64 { return s.Connections }},
	{desc("fanfare_groups", "Groups with members."), prometheus.GaugeValue, func(s *engine.Stats) int64 { return s.Groups }},
	{desc("fanfare_group_memberships", "Memberships of connections in groups."), prometheus.GaugeValue, func(s *engine.Stats) int64 { return s.Memberships }},
	{desc("fanfare_outbox_queued_messages", "Messages that wait for connections that lag."), prometheus.GaugeValue, func(s *engine.Stats) int64 { return s.QueuedMessages }},
	{desc("fanfare_outbox_queued_bytes", "Bytes that wait for connections that lag."), prometheus.GaugeValue, func(s *engine.Stats) int64 { return s.QueuedBytes }},
	{desc("fanfare_unfinished_bytes", "Bytes that are kept of clients' messages that have not arrived completely."), prometheus.GaugeValue, func(s *engine.Stats) int64 { return s.UnfinishedBytes }},
	{desc("fanfare_outbox_dropped_messages_total", "Deliveries lost to connections that were ended with messages waiting."), prometheus.CounterValue, func(s *engine.Stats) int64 { return s.Dropped }},
	{desc("fanfare_group_bytes", "Bytes that groups and memberships hold, by an estimate (limits.totalGroupBytes)."), prometheus.GaugeValue, func(s *engine.Stats) int64 { return s.GroupBytes }},
	{desc("fanfare_pending_event_bytes", "Bytes of events that wait for handlers or are under way (limits.totalPendingEventBytes)."), prometheus.GaugeValue, func(s *engine.Stats) int64 { return s.PendingEventBytes }},
	{desc("fanfare_events_dropped_total", "Requests of clients that had left, and connected and disconnected events, that were given up."), prometheus.CounterValue, func(s *engine.Stats) int64 { return s.EventsDropped }},
	{desc("fanfare_requests_refused_total", "Requests of clients that were refused because too many, or too many bytes of events, waited."), prometheus.CounterValue, func(s *engine.Stats) int64 { return s.RequestsRefused }},
	{desc("fanfare_connections_opened_total", "Connections that were opened."), prometheus.CounterValue, func(s *engine.Stats) int64 { return s.Opened }},
	{desc("fanfare_messages_in_total", "Messages that clients and servers published."), prometheus.CounterValue, func(s *engine.Stats) int64 { return s.MessagesIn }},
	{desc("fanfare_message_bytes_in_total", "Bytes of the messages that clients and servers published."), prometheus.CounterValue, func(s *engine.Stats) int64 { return s.BytesIn }},
	{desc("fanfare_messages_out_total", "Deliveries to connections."), prometheus.CounterValue, func(s *engine.Stats) int64 { return s.MessagesOut }},
	{desc("fanfare_message_bytes_out_total", "Bytes of the deliveries to connections."), prometheus.CounterValue, func(s *engine.Stats) int64 { return s.BytesOut }},
}

// identity makes the page show the counters of what current returns, which starts
// anew when the settings name another one.
func (m *metrics) identity(current func() *serviceIdentity) {
	m.registry.MustRegister(&identityCollector{current})
}

// identityCollector shows what the node has asked for to prove itself with.
type identityCollector struct{ current func() *serviceIdentity }

var (
	tokenFetches   = desc("fanfare_identity_token_fetches_total", "Times that a token of the node's identity was asked for, where Azure issues it.")
	tokenFailures  = desc("fanfare_identity_token_failures_total", "Of these, how many failed.")
	secretFetches  = desc("fanfare_keyvault_fetches_total", "Times that a secret was read from a key vault.")
	secretFailures = desc("fanfare_keyvault_failures_total", "Of these, how many failed.")
)

// Describe implements prometheus.Collector.
func (c *identityCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{tokenFetches, tokenFailures, secretFetches, secretFailures} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *identityCollector) Collect(ch chan<- prometheus.Metric) {
	var tokens managed.Stats
	var secrets keyvault.Stats
	id := c.current()
	if id.managed != nil {
		tokens = id.managed.Stats()
	}
	if id.secrets != nil {
		secrets = id.secrets.Stats()
	}
	for d, n := range map[*prometheus.Desc]int64{
		tokenFetches: tokens.Fetches, tokenFailures: tokens.Failures, secretFetches: secrets.Fetches, secretFailures: secrets.Failures,
	} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
}

func desc(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }

// Describe implements prometheus.Collector.
func (c *engineCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range engineMetrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *engineCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.engine.Stats()
	for _, m := range engineMetrics {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, float64(m.value(&s)))
	}
}
