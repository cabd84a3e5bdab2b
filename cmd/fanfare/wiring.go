package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/clientcert"
	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/issuer"
	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/mqtt"
	"github.com/fanfare/fanfare/transport/rest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// node is everything that runs: the engine in the middle, the doors around it,
// and what proves callers.
type node struct {
	// Fixed at birth.
	started  *config.Config // what a change of that takes a restart is told by
	log      *slog.Logger
	level    *slog.LevelVar
	metrics  *metrics
	tracing  *tracing
	endpoint func(*config.Config) string // what this service is called, by event handlers too

	engine    *engine.Engine
	ring      *accesskey.Ring
	standIn   accesskey.Key // stands in the ring where none is set; nobody has it
	hosts     *authn.Hosts
	issuer    *token.Issuer
	upstreams *upstreams
	directory *directory
	users     *users
	pagingKey []byte
	ownKey    func() (issuer.Key, error) // of service tokens, where no secret of the service's own is there

	requests requests
	draining atomic.Bool
	settings atomic.Pointer[settled]
	doors    atomic.Pointer[http.Handler]
}

// settled is one version of the settings and what was made for it.
type settled struct {
	config   *config.Config
	identity *serviceIdentity
	clients  clients
	schemes  *schemes // nil while no issuer is set
	trusts   trusts
	origins  *origins
}

// newNode puts the rooms together. The caller ends the node with close.
func newNode(c *config.Config, endpoint func(*config.Config) string, log *slog.Logger, level *slog.LevelVar, m *metrics, t *tracing) (*node, error) {
	n := &node{started: c, log: log, level: level, metrics: m, tracing: t, endpoint: endpoint, ring: new(accesskey.Ring), hosts: new(authn.Hosts)}
	n.pagingKey = make([]byte, 32)
	rand.Read(n.pagingKey)
	n.issuer = token.NewIssuer(n.ring.IssuerKeys, n.hosts)
	n.standIn = accesskey.Generate()
	n.ownKey = sync.OnceValues(issuer.GenerateKey)
	n.upstreams = newUpstreams(n)
	n.directory = newDirectory(n)

	var err error
	if n.users, err = newUsers(n, c); err != nil {
		return nil, err
	}
	if err := n.use(c); err != nil {
		return nil, errors.Join(err, n.users.close())
	}
	n.engine, err = engine.New(&engine.Options{
		Hubs:     n.hub,
		Limits:   engineLimits(c),
		Logger:   log.With("room", "engine"),
		Observer: m.engine(t),
	})
	if err == nil {
		err = n.users.watch()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the engine: %w", err), n.close())
	}
	m.watch(n.engine)
	m.watchIssuer(n.directory.stats)
	m.watchUsers(n.users.Stats)
	m.identity(func() *serviceIdentity { return n.settings.Load().identity })
	n.hang(c)
	return n, nil
}

// close ends everything that runs. The doors must be closed already.
func (n *node) close() (err error) {
	if n.engine != nil {
		err = n.engine.Close()
	}
	n.upstreams.close()
	n.directory.close()
	n.requests.end()
	return errors.Join(err, n.users.close())
}

// engineLimits returns the engine's limits: those that were set, or those that
// this machine suggests.
func engineLimits(c *config.Config) engine.Limits {
	l := engine.Limits{
		MessageBytes:        c.Limits.MessageBytes,
		Connections:         c.Limits.Connections,
		OutboundMessages:    c.Limits.OutboundMessages,
		OutboundBytes:       c.Limits.OutboundBytes,
		TotalOutboundBytes:  c.Limits.TotalOutboundBytes,
		GroupsPerConnection: c.Limits.GroupsPerConnection,
		PendingEvents:       c.Limits.PendingEvents,

		MessageTimeout:           c.Limits.MessageTimeout,
		TotalUnfinishedBytes:     c.Limits.TotalUnfinishedBytes,
		ControlRate:              c.Limits.ControlRate,
		GroupBytesPerConnection:  c.Limits.GroupBytesPerConnection,
		TotalGroupBytes:          c.Limits.TotalGroupBytes,
		PendingEventBytes:        c.Limits.PendingEventBytes,
		PendingEventBytesPerUser: c.Limits.PendingEventBytesPerUser,
		PendingEventBytesPerHub:  c.Limits.PendingEventBytesPerHub,
		TotalPendingEventBytes:   c.Limits.TotalPendingEventBytes,
	}
	if l.Connections == 0 {
		l.Connections = maxConnections(fileLimit(), unauthenticatedConnections(c))
	}
	if l.TotalOutboundBytes == 0 {
		l.TotalOutboundBytes = max(outboundMemory(), l.OutboundBytes)
	}
	if quarter := outboundMemory(); l.TotalUnfinishedBytes == 0 && quarter > 0 {
		l.TotalUnfinishedBytes = max(quarter/2, 2*l.MessageBytes)
	}
	if l.TotalGroupBytes == 0 {
		l.TotalGroupBytes = outboundMemory() / 2
	}
	if l.TotalPendingEventBytes == 0 {
		l.TotalPendingEventBytes = outboundMemory() / 2
	}
	return l
}

// use turns everything but the doors to the settings c.
func (n *node) use(c *config.Config) error {
	// The hosts and keys have been judged with the settings; what fails here
	// changes nothing.
	keys, err := parseKeys(c)
	if err != nil {
		return err
	}
	hosts := c.AudienceHosts
	if u, err := url.Parse(c.PublicEndpoint); err == nil && u.Host != "" {
		hosts = append(hosts[:len(hosts):len(hosts)], u.Host)
	}
	if _, err := authn.NewHosts(hosts...); err != nil {
		return err
	}
	if err := new(authn.Hosts).SetPath(publicPath(c)); err != nil {
		return err
	}
	allowed, err := newOrigins(c)
	if err != nil {
		return err
	}
	trusted, err := newTrusts(c, n.log)
	if err != nil {
		return err
	}
	id, made, err := n.upstreams.use(c)
	if err != nil {
		return err
	}
	schemes, err := n.directory.use(c)
	if err != nil {
		return err
	}
	if err := n.users.use(c); err != nil {
		return err
	}
	if err := errors.Join(n.hosts.Set(hosts...), n.hosts.SetPath(publicPath(c))); err != nil {
		return err
	}
	if keys[0].IsZero() { // generated client tokens stem from some key
		keys[0] = n.standIn
	}
	n.ring.Set(keys[0], keys[1])
	n.ring.SetLocalAuth(!c.DisableLocalAuth)
	n.level.Set(c.Log.Level)
	n.settings.Store(&settled{c, id, made, schemes, trusted, allowed})
	return nil
}

// parseKeys returns the access keys in force: primary, secondary.
func parseKeys(c *config.Config) (keys [2]accesskey.Key, err error) {
	for i, k := range c.Keys() {
		if keys[i], err = accesskey.ParseKey(k.Reveal()); err != nil {
			return keys, err
		}
	}
	return keys, nil
}

// hub returns the settings of a hub for the engine.
func (n *node) hub(name engine.HubName) *engine.HubOptions {
	now := n.settings.Load()
	h := now.config.Hub(string(name))
	return &engine.HubOptions{
		Handlers:  n.upstreams.rules(now.config, now.identity, now.clients, h),
		KeepAlive: time.Duration(h.KeepAlive) * time.Second,
	}
}

// hang puts the doors in their place, one behind the other: WebSocket clients,
// application servers, those that manage users, health. Those that are built anew take over from the next
// request on; connections stay, since their lives hang on the engine.
func (n *node) hang(c *config.Config) {
	behind, now := proxies(c.TrustedProxies), n.settings.Load()

	var servers []authn.Authorizer
	if s := now.schemes; s != nil {
		servers = append(servers, s.servers) // knows its tokens by how they are signed
	}
	servers = append(servers, accesskey.NewServers(n.ring, n.hosts))
	inward := rest.NewHandler(n.engine, grantingServers{authn.Servers(servers...)}, &rest.Options{
		Fallback:       n.identities(c, n.published(c, health(n.ready))),
		Tokens:         n.issuer,
		PublicEndpoint: c.PublicEndpoint,
		Origin:         forwardedOrigin,
		AllowOrigin:    now.origins.allowsCaller,
		PagingKey:      n.pagingKey,
		Logger:         n.log.With("room", "rest"),
		Observer:       n.metrics.rest(),
	})

	proven := authn.Clients(
		grantingClients{authn.Clients(
			n.issuer, // knows its own tokens by their key id
			identity.NewClients(n.users.Users, c.Users.Scopes.Grants()),
			accesskey.NewClients(n.ring, n.hosts),
			clientcert.NewClients(n.certificates), // of who shows no token
		), true},
		grantingClients{authn.Anonymous{Allow: n.allowsAnonymous, Besides: n.besidesTokens}, false},
	)
	outer := websocket.NewHandler(n.engine, proven, &websocket.Options{
		Fallback:                   behind.resolve(bounded(inward)),
		Logger:                     n.log.With("room", "websocket"),
		Observer:                   n.metrics.websocket(),
		HandshakeTimeout:           c.Limits.HandshakeTimeout,
		UnauthenticatedConnections: c.Limits.UnauthenticatedConnections,
		Compression:                c.Compression.Enabled,
		Protocols:                  []websocket.Protocol{mqtt.Protocol(&mqtt.Options{Logger: n.log.With("room", "mqtt")})},
		TrustedProxies:             c.TrustedProxies,
		AllowedOrigins:             n.allowedOrigins,
		CertificateHeader:          websocket.CertificateHeader(c.ClientCertHeader),
	})

	doors := stripPrefix(publicPath(c), n.tracing.door(outer))
	n.doors.Store(&doors)
}

// identities returns the door of servers that manage users.
func (n *node) identities(c *config.Config, fallback http.Handler) http.Handler {
	now := n.settings.Load()
	o := &rest.IdentityOptions{
		Fallback:    fallback,
		Origin:      forwardedOrigin,
		AllowOrigin: now.origins.allowsCaller,
		Limits:      c.Users.RateLimits.Limits(),
		Logger:      n.log.With("room", "rest"),
		Observer:    n.metrics.rest(),
	}
	servers := []authn.Authorizer{accesskey.NewSigned(n.ring, &accesskey.SignedOptions{Skew: c.Users.ClockSkew, Hosts: n.hosts})}
	if s := now.schemes; s != nil {
		servers, o.EntraUsers = append(servers, s.managers), grantingUsers{s.users}
	}
	return rest.NewIdentityHandler(n.users, grantingServers{authn.Servers(servers...)}, o)
}

// ServeHTTP hands a request to the doors as they are now.
func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !n.requests.enter() {
		http.Error(w, "this node is going away", http.StatusServiceUnavailable)
		return
	}
	defer n.requests.leave()
	x, r := newExchange(w, r, n.started.Limits.HandshakeTimeout, n.settings.Load().config.TrustedProxies)
	defer x.end()
	if r.ContentLength != 0 {
		// A body that nobody reads holds its connection until it has come.
		x.bound(false)
	}
	(*n.doors.Load()).ServeHTTP(x, r)
	x.finish()
}

// allowsAnonymous tells whether a hub admits clients without a token.
func (n *node) allowsAnonymous(hub engine.HubName) bool {
	return n.settings.Load().config.Hub(string(hub)).AnonymousConnectPolicy == "allow"
}

// ready tells whether to send the node anyone.
func (n *node) ready() bool { return !n.draining.Load() }

// reload turns the running node to other settings. It returns the keys that take
// a restart.
func (n *node) reload(c *config.Config) (restart []string, err error) {
	if err := n.use(c); err != nil {
		return nil, err
	}
	n.hang(c)
	n.engine.Reload()
	n.upstreams.retire()
	n.directory.retire()
	return restartKeys(n.started, c), nil
}

// restartKeys returns the keys that differ and that a running node cannot follow:
// the engine's limits are fixed, and the listener's, which are about handshakes.
func restartKeys(old, c *config.Config) []string {
	var keys []string
	for _, k := range []struct {
		key     string
		differs bool
	}{
		{"listen", old.Listen != c.Listen},
		{"tls", (old.TLS.CertFile == "") != (c.TLS.CertFile == "")},
		{"store", old.Store != c.Store},
		{"users.signingAlgorithm", old.Users.SigningAlgorithm != c.Users.SigningAlgorithm},
		{"users.keyRotation", old.Users.KeyRotation != c.Users.KeyRotation},
		{"limits", old.Limits != c.Limits},
		{"metrics.listen", old.Metrics.Listen != c.Metrics.Listen},
		{"log.format", old.Log.Format != c.Log.Format},
	} {
		if k.differs {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// bodyTime is how long a server may take to send a request's body and to take
// the reply.
const bodyTime = time.Minute

// bounded gives each request to servers' doors an end.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if x := exchangeOf(r.Context()); x != nil {
			x.bound(true)
		}
		next.ServeHTTP(w, r)
	})
}

// admission returns the listener of the doors, over l.
func (n *node) admission(c *config.Config, l net.Listener, secure bool) *admission {
	log := n.log.With("room", "http")
	a := newAdmission(l, admissionOptions{
		Places: unauthenticatedPlaces(c, fileLimit()), Timeout: c.Limits.HandshakeTimeout, TLS: secure,
		Trusts: func(a netip.Addr) bool { return proxies(n.settings.Load().config.TrustedProxies).trusts(a) },
		Closed: func(remote net.Addr, rule, text string) {
			n.metrics.connectionRefusals.WithLabelValues(rule).Inc()
			log.Info("closed a connection", "rule", rule, "remote", remote.String(), "error", text)
		},
	})
	n.metrics.watchListener(a.unauthenticated)
	return a
}

// httpServer returns the server of the doors. It goes with the listener front.
func (n *node) httpServer(c *config.Config, front *admission) *http.Server {
	return &http.Server{
		Handler:     n,
		ConnState:   front.state,
		ConnContext: front.context,
		// For TLS, and again for a request's headers. The listener bounds both together, and
		// says why: it comes first.
		ReadHeaderTimeout: c.Limits.HandshakeTimeout + time.Second,
		WriteTimeout:      grace + bodyTime, // a refusal may come as late as a connect handler's answer
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10, // a token may have 16 KiB
		// A stream cannot end while its connection takes no bytes, nor can its handler.
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: mostStreams, WriteByteTimeout: bodyTime / 2},
		ErrorLog: n.httpErrors(n.log.With("room", "http")),
	}
}
