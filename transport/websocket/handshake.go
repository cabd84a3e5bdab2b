package websocket

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // for appendAnswer alone
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// target is what a path of this door names.
type target struct {
	hub  string // unescaped, not yet checked
	path string // as a token's audience spells it
	// absent names a kind of client that this build does not serve.
	absent string
}

// parseTarget reads the path as it was escaped: an escaped slash is part of a
// name, and so are dots. It reports whether the path is one of this door's.
func parseTarget(u *url.URL) (t target, mine bool) {
	path := u.EscapedPath()
	switch {
	case path == "/client" || path == "/client/":
		// The older form. Tokens for it are addressed to the newer one.
		t.hub = lastQuery(u.Query(), "hub")
		t.path = "/client/hubs/" + url.PathEscape(t.hub)
		return t, true
	case strings.HasPrefix(path, "/clients/mqtt/hubs/"):
		return target{absent: "MQTT"}, true
	case strings.HasPrefix(path, "/clients/socketio/hubs/"):
		return target{absent: "Socket.IO"}, true
	}
	segment, ok := strings.CutPrefix(path, "/client/hubs/")
	if !ok || strings.Contains(segment, "/") {
		return t, false
	}
	hub, err := url.PathUnescape(segment)
	if err != nil {
		hub = segment // EscapedPath has no bad escapes; were there one, it is no hub's name
	}
	return target{hub: hub, path: path}, true
}

func lastQuery(q url.Values, name string) string {
	if v := q[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// lastFold is lastQuery for a name in any case. Of several spellings the first in
// byte order counts, since a map has no order.
func lastFold(q url.Values, name string) string {
	spelling := ""
	for have := range q {
		if strings.EqualFold(have, name) && (spelling == "" || have < spelling) {
			spelling = have
		}
	}
	return lastQuery(q, spelling)
}

// knock is one request to be let in.
type knock struct {
	h   *Handler
	w   http.ResponseWriter
	r   *http.Request
	hub engine.HubName
	// query is that of the request, and token the access token it shows.
	query url.Values
	token string
	// certs is the client's certificate chain, leaf first; see takeCertificates.
	certs []*x509.Certificate
	// stream is the client's end over HTTP/2, once the request is answered 200.
	stream *streamConn
}

// serve lets the client in, or says why not. After the answer 101 it returns nil
// whatever happens. The checks come in the order that Azure Web PubSub has them.
func (k *knock) serve(t target) error {
	if t.absent != "" {
		return &refusal{http.StatusNotFound, engine.Errorf(engine.CodeUnsupported, "client.kind",
			"This build does not serve %s clients. WebSocket clients connect to /client/hubs/{hub}.", t.absent)}
	}
	offered, err := k.open(t)
	if err != nil {
		return err
	}
	id := engine.ConnID(lastFold(k.query, "awps_connection_id"))
	if err := k.checkOrigin(k.token != "" || id != ""); err != nil {
		return err
	}
	if id != "" { // the token of the connection is all the proof there is
		return k.recover(id, offered)
	}
	identity, err := k.authenticate(t)
	if err != nil {
		return err
	}
	raw, err := parseRaw(k.query)
	if err != nil {
		return err
	}
	admission, err := k.admit(identity, offered)
	if err != nil {
		return err
	}
	chosen, err := choose(admission.Subprotocol(), offered)
	if err != nil {
		admission.Abandon(err.Error())
		return err
	}
	return k.upgrade(admission, chosen, raw)
}

// open makes the checks that come before all others, sets what the request says
// about its client, and returns the subprotocols the client offers.
func (k *knock) open(t target) (offered []string, err error) {
	if err := k.checkUpgrade(); err != nil {
		return nil, err
	}
	if k.hub, err = engine.ParseHubName(t.hub); err != nil {
		return nil, err
	}
	if err := k.takeCertificates(); err != nil {
		return nil, err
	}
	if offered, err = k.offered(); err != nil {
		return nil, err
	}
	k.query = k.r.URL.Query()
	if k.token, err = token(k.query, k.r.Header); err != nil {
		return nil, err
	}
	return offered, nil
}

// errUpgrade refuses a request that is not a WebSocket handshake.
func errUpgrade(what, got, want string) error {
	return engine.Errorf(engine.CodeInvalid, "websocket.upgrade",
		"This is no WebSocket handshake: %s is %s, expected %s.", what, excerpt(got), want)
}

// checkUpgrade checks that this is a WebSocket handshake (RFC 6455 section 4.2.1, or
// RFC 8441 section 5).
func (k *knock) checkUpgrade() error {
	r := k.r
	if r.ProtoMajor == 2 {
		return k.checkExtendedConnect()
	}
	lines := func(name string) string { return strings.Join(r.Header.Values(name), ", ") }
	switch key := r.Header["Sec-Websocket-Key"]; {
	case r.Method != http.MethodGet:
		return errUpgrade("the method", r.Method, "GET")
	case !r.ProtoAtLeast(1, 1) || r.ProtoMajor > 1:
		return errUpgrade("the version of HTTP", r.Proto, "HTTP/1.1")
	case !hasToken(r.Header["Connection"], "upgrade"):
		return errUpgrade("the Connection header", lines("Connection"), "Upgrade")
	case !hasToken(r.Header["Upgrade"], "websocket"):
		return errUpgrade("the Upgrade header", lines("Upgrade"), "websocket")
	case r.ContentLength != 0:
		// Taken for what follows the handshake, a body would be read as frames.
		k.w.Header().Set("Connection", "close")
		return engine.Errorf(engine.CodeInvalid, "websocket.body", "A WebSocket handshake cannot have a body: expected neither Transfer-Encoding nor a Content-Length but 0.")
	case len(key) != 1 || !isHandshakeKey(key[0]):
		return errUpgrade("the Sec-WebSocket-Key header", lines("Sec-Websocket-Key"), "16 bytes in base64, once")
	}
	return k.checkVersion()
}

// checkVersion checks the version of the WebSocket protocol.
func (k *knock) checkVersion() error {
	switch versions := k.r.Header["Sec-Websocket-Version"]; {
	case len(versions) != 1:
		return errUpgrade("the Sec-WebSocket-Version header", strings.Join(versions, ", "), "13, once")
	case versions[0] != "13":
		header, status := k.w.Header(), http.StatusBadRequest
		header["Sec-WebSocket-Version"] = []string{"13"} // in the RFC's spelling
		if k.r.ProtoMajor == 1 {
			header["Upgrade"], header["Connection"] = []string{"websocket"}, []string{"Upgrade"} // RFC 9110 section 15.5.22
			status = http.StatusUpgradeRequired
		}
		return &refusal{status, engine.Errorf(engine.CodeInvalid, "websocket.version",
			"The WebSocket version is %s, expected 13.", excerpt(versions[0]))}
	}
	return nil
}

// isHandshakeKey reports whether key is 16 bytes in base64 (RFC 6455 section 4.1).
func isHandshakeKey(key string) bool {
	var b [18]byte
	if len(key) != base64.StdEncoding.EncodedLen(16) || strings.ContainsAny(key, "\r\n") {
		return false
	}
	n, err := base64.StdEncoding.Decode(b[:], []byte(key))
	return err == nil && n == 16
}

func hasToken(values []string, token string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// offered returns the subprotocols the client offers, in its order and spelling. A
// list can have empty elements (RFC 9110 section 5.6.1.2), and so can be empty
// though the header is there.
func (k *knock) offered() ([]string, error) {
	var names []string
	for _, v := range k.r.Header["Sec-Websocket-Protocol"] {
		for name := range strings.SplitSeq(v, ",") {
			name = strings.Trim(name, " \t")
			switch {
			case name == "":
			case !isToken(name):
				return nil, engine.Errorf(engine.CodeInvalid, "websocket.subprotocol",
					"The Sec-WebSocket-Protocol header is %s, expected names separated by commas.", excerpt(v))
			default:
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// isToken reports whether s consists of token characters (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

func (k *knock) crowded() error {
	return engine.Errorf(engine.CodeUnavailable, "limits.unauthenticatedConnections",
		"Too many clients are being authenticated at the moment: %d are allowed. Try again later.",
		k.h.o.UnauthenticatedConnections)
}

// authenticate asks the authenticator who the client is.
func (k *knock) authenticate(t target) (engine.Identity, error) {
	h := k.h
	defer h.knocking.Add(-1)
	if h.knocking.Add(1) > int64(h.o.UnauthenticatedConnections) {
		return engine.Identity{}, k.crowded()
	}
	ctx := withTimeout(k.r.Context(), h.o.HandshakeTimeout)
	defer ctx.stop()
	identity, err := h.auth.Authenticate(ctx, k.credentials(t))
	if err != nil && ctx.Err() != nil && k.r.Context().Err() == nil {
		return identity, &engine.Error{
			Code: engine.CodeTimeout, Rule: "limits.handshakeTimeout", Err: err,
			Message: fmt.Sprintf("The credentials could not be checked within %s. Try again later.", h.o.HandshakeTimeout),
		}
	}
	return identity, err
}

// credentials collects what the client showed.
func (k *knock) credentials(t target) engine.Credentials {
	remote, host, scheme := k.addressed()
	audience := k.h.o.PublicEndpoint
	if audience == "" {
		audience = scheme + "://" + host
	}
	return engine.Credentials{
		Hub:              k.hub,
		Audience:         strings.TrimSuffix(audience, "/") + t.path,
		Token:            k.token,
		PeerCertificates: k.certs,
		RemoteAddr:       remote,
		Header:           k.r.Header,
	}
}

// addressed returns who asks, and the host and scheme it addressed; from the
// forwarded headers if a trusted proxy asks.
func (k *knock) addressed() (remote netip.AddrPort, host, scheme string) {
	r := k.r
	remote, _ = netip.ParseAddrPort(r.RemoteAddr)
	host, scheme = r.Host, "http"
	if r.TLS != nil {
		scheme = "https"
	}
	if !k.h.trusts(remote.Addr()) {
		return remote, host, scheme
	}
	// Of several values the last is the one that the trusted proxy wrote.
	if v := lastForwarded(r.Header, "X-Forwarded-Host"); v != "" {
		host = v
	}
	switch strings.ToLower(lastForwarded(r.Header, "X-Forwarded-Proto")) {
	case "https", "wss":
		scheme = "https"
	case "http", "ws":
		scheme = "http"
	}
	v := lastForwarded(r.Header, "X-Forwarded-For")
	if ap, err := netip.ParseAddrPort(v); err == nil {
		remote = ap
	} else if a, err := netip.ParseAddr(v); err == nil {
		remote = netip.AddrPortFrom(a, 0)
	}
	return remote, host, scheme
}

func (h *Handler) trusts(a netip.Addr) bool {
	for _, p := range h.o.TrustedProxies {
		if p.Contains(a.Unmap()) || p.Contains(a) {
			return true
		}
	}
	return false
}

func lastForwarded(header http.Header, name string) string {
	values := header.Values(name)
	if len(values) == 0 {
		return ""
	}
	v := values[len(values)-1]
	return strings.TrimSpace(v[strings.LastIndexByte(v, ',')+1:])
}

// token returns the bearer token: of the query, whose name may be in any case, or
// else of the header. A request that shows several is refused: which of them counts
// would depend on who reads it, the node or a proxy before it.
func token(query url.Values, header http.Header) (string, error) {
	several := func(what string) (string, error) {
		return "", engine.Errorf(engine.CodeUnauthenticated, "token.malformed", "The request has %s: expected one.", what)
	}
	found := ""
	for name, values := range query {
		if !strings.EqualFold(name, "access_token") {
			continue
		}
		for _, v := range values {
			if v != "" && found != "" && v != found {
				return several("several access tokens in its query, which differ")
			}
			found = cmp.Or(v, found)
		}
	}
	authorization := header["Authorization"]
	if len(authorization) > 1 {
		return several(fmt.Sprintf("%d Authorization headers", len(authorization)))
	}
	if found != "" || len(authorization) == 0 {
		return found, nil
	}
	scheme, value, ok := strings.Cut(authorization[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	return strings.TrimSpace(value), nil
}

// rawMode is how a raw client's messages are meant.
type rawMode struct {
	mode   subprotocol.RawMode
	group  engine.GroupName
	noEcho bool
}

func parseRaw(query url.Values) (m rawMode, err error) {
	m.mode, m.group, m.noEcho, err = subprotocol.ParseRawMode(query)
	return m, err
}

// admit asks the hub, which asks the event handler.
func (k *knock) admit(identity engine.Identity, offered []string) (*engine.Admission, error) {
	a, err := k.h.engine.Hub(k.hub).Admit(k.r.Context(), k.request(identity, offered))
	if err != nil {
		return nil, &refusal{admitStatus(err), err}
	}
	return a, nil
}

// request is what the hub is asked.
func (k *knock) request(identity engine.Identity, offered []string) *engine.AdmitRequest {
	for name := range k.query {
		if strings.EqualFold(name, "access_token") {
			delete(k.query, name)
		}
	}
	return &engine.AdmitRequest{
		Identity:         identity,
		Subprotocols:     offered,
		Query:            k.query,
		Fill:             func(a *engine.AdmitRequest) { a.Header = eventHeader(k.r) },
		PeerCertificates: k.certs,
		RemoteAddr:       k.clientAddr(),
	}
}

// eventHeader returns the header that the connect event has: without secrets.
func eventHeader(r *http.Request) http.Header {
	header := make(http.Header, len(r.Header)+1)
	for name, values := range r.Header {
		if name != "Authorization" && !hasPrefixFold(name, "X-ASRS-Internal-") {
			header[name] = values
		}
	}
	if r.Host != "" {
		header["Host"] = []string{r.Host} // net/http keeps it apart
	}
	return header
}

// clientAddr returns the client's address, or the zero Addr if only that of a trusted
// proxy is known.
func (k *knock) clientAddr() netip.Addr {
	remote, _, _ := k.addressed()
	if direct, err := netip.ParseAddrPort(k.r.RemoteAddr); err == nil && direct == remote && k.h.trusts(direct.Addr()) {
		return netip.Addr{}
	}
	return remote.Addr()
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// choose returns the subprotocol of the connection in the client's spelling: the
// handler's choice, or else the first of Azure's that the client offers, or none.
func choose(choice string, offered []string) (string, error) {
	if choice == "" {
		return firstKnown(offered), nil
	}
	if name, ok := spelled(choice, offered); ok {
		return name, nil
	}
	return "", engine.Errorf(engine.CodeInternal, "connect.subprotocol",
		"The event handler chose the subprotocol %s, which the client did not offer.", excerpt(choice))
}

// firstKnown returns the first subprotocol of Azure's among those offered, or none.
func firstKnown(offered []string) string {
	for _, name := range offered {
		if _, ok := subprotocol.Find(name); ok {
			return name
		}
	}
	return ""
}

// spelled finds name among those offered, and returns it in the client's spelling.
func spelled(name string, offered []string) (string, bool) {
	for _, have := range offered {
		if strings.EqualFold(have, name) {
			return have, true
		}
	}
	return "", false
}

// upgrade answers 101 and opens the connection.
func (k *knock) upgrade(a *engine.Admission, chosen string, raw rawMode) error {
	c, err := k.acceptDeflated(chosen)
	if err != nil {
		a.Abandon("The client was gone before the handshake was done.")
		return nil //nolint:nilerr // accept has told the log, and there is nobody left to answer
	}
	o := k.session(chosen, raw, c.agreed)
	if err := k.h.open(c, o, func(s *transport.Session, w transport.Wire) error {
		return s.Open(a, w, o)
	}); err != nil {
		k.note(http.StatusSwitchingProtocols, err)
	}
	return nil
}

// sessionKey is what the options of a session in one of Azure's subprotocols depend
// on.
type sessionKey struct {
	hub      engine.HubName
	encoding encoding
}

// session says what a session is to know of a client that speaks protocol. All of a
// hub that speak one of Azure's are told the same.
func (k *knock) session(protocol string, raw rawMode, a agreement) *transport.SessionOptions {
	p, ok := subprotocol.Find(protocol)
	if !ok {
		return k.newSession(protocol, raw, a)
	}
	key := sessionKey{k.hub, encoding{p.Encoder, a.server}}
	if o, ok := k.h.sessions.Load(key); ok {
		return o.(*transport.SessionOptions)
	}
	o, _ := k.h.sessions.LoadOrStore(key, k.newSession(protocol, raw, a))
	return o.(*transport.SessionOptions)
}

func (k *knock) newSession(protocol string, raw rawMode, a agreement) *transport.SessionOptions {
	h := k.h
	o := &transport.SessionOptions{WirePings: true, Logger: h.o.Logger}
	if received := h.o.Observer.Received; received != nil {
		hub := k.hub
		o.Received = func(n int) { received(hub, n) }
	}
	var codec subprotocol.Encoder
	if p, ok := subprotocol.Find(protocol); ok {
		codec, o.Decoder, o.Subprotocol = p.Encoder, p.Decoder, p.Name
		o.Reliable, o.Recovery = p.Reliable, max(h.o.RecoveryWindow, 0)
	} else {
		codec, o.Decoder = subprotocol.Raw(raw.mode, raw.group, raw.noEcho)
		o.Subprotocol, o.Raw = strings.Clone(protocol), true
	}
	o.Encoding = encoding{codec, a.server}
	return o
}

// acceptDeflated is accept with compression, if that is wanted on both ends.
func (k *knock) acceptDeflated(protocol string) (*accepted, error) {
	var a agreement
	if k.h.o.Compression {
		a = acceptDeflate(k.r.Header.Values("Sec-Websocket-Extensions"), k.h.reserveWindow)
	}
	c, err := k.accept(protocol, a.response)
	if err != nil {
		k.h.windows.Add(-int64(a.kept()))
		return nil, err
	}
	c.agreed = a
	return c, nil
}

// accepted is a connection that was taken out of the HTTP server's hands.
type accepted struct {
	net.Conn
	answer []byte // 101, which the client has yet to get
	rest   []byte // what it has sent already
	agreed agreement
}

// accept takes the connection out of the HTTP server's hands. The answer is left to
// the caller, who may have more for the client: one write costs half of two.
func (k *knock) accept(protocol, extension string) (*accepted, error) {
	if k.r.ProtoMajor == 2 {
		return k.acceptStream(protocol, extension)
	}
	c, rw, err := http.NewResponseController(k.w).Hijack() // which clears the deadlines
	if err != nil {
		k.h.o.Logger.Debug("a handshake failed", "hub", k.hub, "remote", k.r.RemoteAddr, "error", err)
		return nil, err
	}
	rest, _ := rw.Reader.Peek(rw.Reader.Buffered())
	return &accepted{Conn: c, answer: appendAnswer(make([]byte, 0, answerRoom), k.r.Header.Get("Sec-Websocket-Key"), protocol, extension), rest: rest}, nil
}

// answerRoom is enough for most answers with the first message behind them.
const answerRoom = 512

// send sends the answer alone.
func (k *knock) send(c *accepted) error {
	c.SetWriteDeadline(time.Now().Add(k.h.o.HandshakeTimeout))
	_, err := c.Write(c.answer)
	if err != nil {
		c.Close()
		k.h.o.Logger.Debug("a handshake failed", "hub", k.hub, "remote", k.r.RemoteAddr, "error", err)
		return err
	}
	c.answer = nil
	return c.SetWriteDeadline(time.Time{})
}

// appendAnswer appends the answer to a handshake (RFC 6455 section 4.2.2). protocol
// and extension are of a client's or our own making, and hold no line break; an
// empty one is left out. Names are spelled as the RFC spells them: there are clients
// that compare letters.
func appendAnswer(dst []byte, key, protocol, extension string) []byte {
	const uuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	var text [24 + len(uuid)]byte                              // of a key that checkUpgrade has seen
	sum := sha1.Sum(append(append(text[:0], key...), uuid...)) //nolint:gosec // the RFC wants it, and nothing is kept secret by it
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	dst = base64.StdEncoding.AppendEncode(dst, sum[:])
	if protocol != "" {
		dst = append(append(dst, "\r\nSec-WebSocket-Protocol: "...), protocol...)
	}
	if extension != "" {
		dst = append(append(dst, "\r\nSec-WebSocket-Extensions: "...), extension...)
	}
	return append(dst, "\r\n\r\n"...)
}

// refusal is an error with an HTTP status of its own.
type refusal struct {
	status int
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// statuses says what a refusal before the connect event is in HTTP.
var statuses = map[engine.Code]int{
	engine.CodeInvalid:         http.StatusBadRequest,
	engine.CodeUnsupported:     http.StatusBadRequest,
	engine.CodeUnauthenticated: http.StatusUnauthorized,
	engine.CodeForbidden:       http.StatusForbidden,
	engine.CodeNotFound:        http.StatusNotFound,
	engine.CodeConflict:        http.StatusConflict,
	engine.CodeTooLarge:        http.StatusRequestHeaderFieldsTooLarge,
	engine.CodeUnavailable:     http.StatusServiceUnavailable,
	engine.CodeClosed:          http.StatusServiceUnavailable,
	engine.CodeTimeout:         http.StatusGatewayTimeout,
}

// admitStatus says what a refusal by the hub is in HTTP: the event handler's own
// status, 503 for want of room, and 500 for everything that went wrong.
func admitStatus(err error) int {
	var e *engine.Error
	if errors.As(err, &e) && e.Status >= 300 && e.Status <= 599 { // others cannot be sent as a refusal
		return e.Status
	}
	switch code := engine.CodeOf(err); code {
	case engine.CodeUnavailable, engine.CodeClosed, engine.CodeUnauthenticated, engine.CodeForbidden:
		return statuses[code]
	}
	return http.StatusInternalServerError
}

// refuse answers with the rule that refused and what would pass, on one line.
func (k *knock) refuse(err error) {
	status := http.StatusInternalServerError
	var own *refusal
	if errors.As(err, &own) {
		status = own.status
	} else if s, ok := statuses[engine.CodeOf(err)]; ok {
		status = s
	}
	k.note(status, err)
	header := k.w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", "Bearer")
	}
	k.w.WriteHeader(status)
	if !byHandler(err) { // its status passes through, and nothing else does
		fmt.Fprintln(k.w, explain(status, err))
	}
}

// byHandler reports whether err is the event handler's own refusal.
func byHandler(err error) bool {
	var e *engine.Error
	return errors.As(err, &e) && e.Status != 0
}

// explain says in one line what may be shown to a stranger.
func explain(status int, err error) string {
	var e *engine.Error
	if !errors.As(err, &e) || e.Message == "" {
		return http.StatusText(status)
	}
	text := strings.Join(strings.Fields(e.Message), " ")
	if e.Rule != "" {
		text += " [" + e.Rule + "]"
	}
	return text
}

// note writes the log's line about a refusal.
func (k *knock) note(status int, err error) {
	rule, detail := "", ""
	var e *engine.Error
	if errors.As(err, &e) {
		rule, detail = e.Rule, e.Detail
	}
	k.h.o.Logger.Info("refused a client", "status", status, "rule", rule, "hub", k.hub,
		"remote", k.r.RemoteAddr, "error", err.Error(), "detail", detail)
	if f := k.h.o.Observer.Refused; f != nil {
		f(k.hub, status, rule)
	}
}

// excerpt quotes at most 64 bytes of what a stranger sent.
func excerpt(s string) string {
	if len(s) > 64 {
		return fmt.Sprintf("%q... (%d bytes)", s[:64], len(s))
	}
	return fmt.Sprintf("%q", s)
}
