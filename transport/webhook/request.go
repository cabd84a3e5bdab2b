package webhook

import (
	"bytes"
	"crypto/sha1" // the thumbprint of a certificate is defined with it; nothing is trusted because of it
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/fanfare/fanfare/engine"
)

// Header names, spelled as Azure documents and sends them: some handlers look
// at spelling although HTTP does not. (Azure Web PubSub, CloudEvents reference.)
const (
	hdrSpecVersion  = "ce-specversion"
	hdrAWPSVersion  = "ce-awpsversion"
	hdrType         = "ce-type"
	hdrSource       = "ce-source"
	hdrID           = "ce-id"
	hdrTime         = "ce-time"
	hdrSignature    = "ce-signature"
	hdrConnectionID = "ce-connectionId"
	hdrHub          = "ce-hub"
	hdrEventName    = "ce-eventName"
	hdrUserID       = "ce-userId"
	hdrSubprotocol  = "ce-subprotocol"
	hdrState        = "ce-connectionState"
	hdrOrigin       = "WebHook-Request-Origin"
	hdrRequestID    = "x-ms-client-request-id"
	hdrMetadata     = "x-webpubsub-metadata-"
	hdrContentType  = "Content-Type"
	hdrUserAgent    = "User-Agent"

	// As net/http spells the headers of replies.
	replyState         = "Ce-Connectionstate"
	replyAllowedOrigin = "Webhook-Allowed-Origin"
	replyContentType   = "Content-Type"
)

const userAgent = "Fanfare"

// Bounds of a message's metadata, as Azure's runtime has them.
const (
	maxMetadataKey   = 256
	maxMetadataValue = 1024
	maxMetadata      = 8 << 10
)

const typeJSON = "application/json; charset=utf-8"

// contentTypes are the media types of user events by data type.
var contentTypes = [...]string{
	engine.Text:     "text/plain; charset=utf-8",
	engine.JSON:     "application/json",
	engine.Binary:   "application/octet-stream",
	engine.Protobuf: "application/x-protobuf",
}

// event is what all four kinds of events have in common on their way out.
type event struct {
	*engine.EventContext
	// label is bounded, for metrics: a system event's name, or "user".
	label string
	// name is the event's own, and prefix what precedes it in ce-type.
	prefix, name string
	contentType  string
	body         []byte
	metadata     engine.Metadata

	member   string   // the protocol's own, of a system event's body; empty for none
	exchange Exchange // nil for none
}

const (
	sysPrefix  = "azure.webpubsub.sys."
	userPrefix = "azure.webpubsub.user."

	labelUser     = "user"
	labelValidate = "validate"
)

func systemEvent(ec *engine.EventContext, name string, body []byte) *event {
	return &event{EventContext: ec, label: name, prefix: sysPrefix, name: name, contentType: typeJSON, body: body}
}

func userEvent(e *engine.UserEvent) *event {
	ev := &event{
		EventContext: &e.EventContext, label: labelUser, prefix: userPrefix, name: string(e.Name),
		contentType: contentTypes[e.Payload.Type&3], body: e.Payload.Data, metadata: e.Metadata,
	}
	if x, ok := e.Attributes.(Exchange); ok {
		ev.exchange = x
		if t := x.ContentType(); t != "" {
			ev.contentType = t
		}
	}
	return ev
}

// headers builds a request's headers. Values share one array, and names are
// stored as they are spelled, without regard to net/http's canonical form.
type headers struct {
	h      http.Header
	values []string
	err    error
}

func newHeaders() *headers {
	const usual = 20
	return &headers{h: make(http.Header, usual), values: make([]string, 0, usual)}
}

// put adds a value that is known to be fit to send.
func (b *headers) put(name, value string) {
	b.values = append(b.values, value)
	n := len(b.values)
	b.h[name] = b.values[n-1 : n : n]
}

// set adds a value that must be printable ASCII. Anything else ends the event:
// Azure's runtime refuses to send it, and does not try again.
func (b *headers) set(name, value string) {
	for i := range len(value) {
		if c := value[i]; (c < ' ' || c > '~') && c != '\t' {
			b.refuse(name, i)
			return
		}
	}
	b.put(name, value)
}

// setUTF8 is set for the one header that may hold more than ASCII, ce-userId.
func (b *headers) setUTF8(name, value string) {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			b.refuse(name, i)
			return
		}
	}
	b.put(name, value)
}

func (b *headers) refuse(name string, at int) {
	if b.err == nil {
		b.err = &engine.Error{Code: engine.CodeInternal, Rule: "event.header",
			Message: "The event cannot be sent: " + name + " holds a character that the header cannot carry.",
			Detail:  fmt.Sprintf("at byte %d; printable ASCII would pass, and in %s all of UTF-8 but control characters", at, hdrUserID)}
	}
}

// eventHeaders makes the headers of a POST, all but Cookie and Authorization.
func (c *Client) eventHeaders(e *event, st *state) (http.Header, error) {
	b := newHeaders()
	b.put(hdrSpecVersion, "1.0")
	b.put(hdrAWPSVersion, "1.0")
	b.set(hdrType, e.prefix+e.name)
	source := "/hubs/" + string(e.Hub) + "/client/" + string(e.ConnID)
	words, _ := e.Details.(Words)
	if words != nil {
		if s := words.EventSource(); s != "" {
			source += "/" + s
		}
	}
	b.set(hdrSource, source)
	b.put(hdrID, strconv.FormatUint(e.ID, 10))
	b.put(hdrTime, e.Time.UTC().Format("2006-01-02T15:04:05Z"))
	b.set(hdrConnectionID, string(e.ConnID))
	b.set(hdrHub, string(e.Hub))
	b.set(hdrEventName, e.name)
	if c.signer != nil {
		if s := c.signer.Signature(string(e.ConnID)); s != "" {
			b.set(hdrSignature, s)
		}
	}
	if e.UserID != "" {
		b.setUTF8(hdrUserID, string(e.UserID))
	}
	if e.Subprotocol != "" {
		b.set(hdrSubprotocol, e.Subprotocol)
	}
	if st.has {
		b.set(hdrState, st.text) // also where it is empty: that is a state, too
	}
	b.put(hdrOrigin, c.originHost)
	b.put(hdrRequestID, uuid.NewString())
	b.set(hdrContentType, e.contentType)
	b.put(hdrUserAgent, userAgent)
	if words != nil {
		event := ""
		if e.label != labelUser {
			event = e.name
		}
		b.setOwn(words.EventHeaders(event))
	}
	if e.exchange != nil {
		b.setOwn(e.exchange.EventHeaders())
	}
	if err := b.setMetadata(e.metadata); err != nil {
		return nil, err
	}
	if b.err != nil {
		return nil, b.err
	}
	return b.h, nil
}

// setMetadata adds a message's metadata. Of keys that are equal without regard
// to case, the last in the order of their bytes wins.
func (b *headers) setMetadata(m engine.Metadata) error {
	total := 0
	for _, k := range m.Keys() {
		v := m[k]
		total += len(k) + len(v)
		why := ""
		switch {
		case k == "" || len(k) > maxMetadataKey || !isToken(k):
			why = fmt.Sprintf("a key has %d bytes; 1 to %d characters of an HTTP token would pass", len(k), maxMetadataKey)
		case len(v) > maxMetadataValue || !isPrintable(v):
			why = fmt.Sprintf("the value of %s has %d bytes; at most %d characters of printable ASCII would pass", k, len(v), maxMetadataValue)
		case total > maxMetadata:
			why = fmt.Sprintf("keys and values have more than %d bytes together", maxMetadata)
		}
		if why != "" {
			return &engine.Error{Code: engine.CodeInvalid, Rule: "event.metadata", Target: "metadata",
				Message: "The metadata of the event breaks the rules for metadata.", Detail: why}
		}
		b.put(hdrMetadata+strings.ToLower(k), v)
	}
	return nil
}

// isToken reports whether s consists of token characters (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return true
}

func isPrintable(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' || c > '~') && c != '\t' {
			return false
		}
	}
	return true
}

// connectBody is the body of a connect event. All members are always there.
// (Azure Web PubSub, CloudEvents reference, "connect".)
func connectBody(e *engine.ConnectEvent) ([]byte, error) {
	type certificate struct {
		Thumbprint string `json:"thumbprint"`
		Content    string `json:"content"`
	}
	body := struct {
		Claims             map[string][]string `json:"claims"`
		Query              map[string][]string `json:"query"`
		Headers            map[string][]string `json:"headers"`
		Subprotocols       []string            `json:"subprotocols"`
		ClientCertificates []certificate       `json:"clientCertificates"`
	}{
		Claims:             members(e.Claims, func(string) bool { return true }),
		Query:              members(e.Query, func(k string) bool { return !strings.EqualFold(k, "access_token") }),
		Headers:            clientHeaders(e.Header),
		Subprotocols:       e.Subprotocols,
		ClientCertificates: []certificate{},
	}
	if body.Subprotocols == nil {
		body.Subprotocols = []string{}
	}
	if len(e.PeerCertificates) > 0 { // the leaf alone
		leaf := e.PeerCertificates[0]
		body.ClientCertificates = append(body.ClientCertificates, certificate{thumbprint(leaf), pemText(leaf)})
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		return nil, fmt.Errorf("webhook: encode connect event: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// isForHandlers reports whether a client's header may be shown to a handler:
// all but the credential and what is between a service and its load balancer.
func isForHandlers(name string) bool {
	return !strings.EqualFold(name, "Authorization") && !hasPrefixFold(name, "X-ASRS-Internal-")
}

// members copies what keep lets through, so that no value is encoded as null.
func members(m map[string][]string, keep func(string) bool) map[string][]string {
	out := make(map[string][]string, len(m))
	for k, v := range m {
		if !keep(k) {
			continue
		}
		if v == nil {
			v = []string{}
		}
		out[k] = v
	}
	return out
}

// thumbprint is SHA-1 over the certificate, in lower-case hexadecimal.
func thumbprint(c *x509.Certificate) string {
	sum := sha1.Sum(c.Raw)
	return hex.EncodeToString(sum[:])
}

// pemText is the certificate as PEM with the line ends that Azure's documentation shows.
func pemText(c *x509.Certificate) string {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	return strings.ReplaceAll(strings.TrimSuffix(string(text), "\n"), "\n", "\r\n")
}

// disconnectedBody is the body of a disconnected event.
func disconnectedBody(reason string) ([]byte, error) {
	b, err := json.Marshal(struct {
		Reason string `json:"reason"`
	}{reason})
	if err != nil {
		return nil, fmt.Errorf("webhook: encode disconnected event: %w", err)
	}
	return b, nil
}
