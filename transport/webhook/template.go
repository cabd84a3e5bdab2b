package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// maxTemplate bounds a URL template, in bytes.
const maxTemplate = 8 << 10

// template is a parsed URL template: literal text, the parameters {hub} and
// {event}, and references to secrets. (Azure Web PubSub, event handler settings.)
type template struct {
	parts []part
	// shown is the text up to the query, with references unread: what logs and
	// errors call this handler.
	shown string
	// refs are the URIs of the secrets to read, each once.
	refs []string
	// late is true if a secret supplies (a part of) the scheme or the host, so
	// that these can be checked only once it has been read.
	late bool
	// scheme is the URL's, unless late.
	scheme string
}

// part is a piece of a template; text is the literal, or the secret's URI.
type part struct {
	kind partKind
	text string
}

type partKind uint8

const (
	literal partKind = iota
	hubParam
	eventParam
	secretRef
)

const (
	refOpen  = "{@Microsoft.KeyVault("
	refClose = ")}"
)

// parseTemplate checks all that can be checked before secrets are read.
func parseTemplate(s string) (*template, error) {
	if len(s) > maxTemplate {
		return nil, badTemplate(engine.CodeInvalid, "The URL template of the event handler is too long.",
			fmt.Sprintf("it has %d bytes; at most %d are allowed", len(s), maxTemplate))
	}
	t := &template{shown: s}
	if query := strings.IndexAny(s, "?#"); query >= 0 {
		t.shown = s[:query]
	}
	for rest := s; rest != ""; {
		n := strings.IndexAny(rest, "{}")
		if n < 0 {
			n = len(rest)
		}
		if n > 0 {
			t.parts = append(t.parts, part{literal, rest[:n]})
			rest = rest[n:]
			continue
		}
		at := len(s) - len(rest)
		switch {
		case hasPrefixFold(rest, "{hub}"):
			t.parts = append(t.parts, part{kind: hubParam})
			rest = rest[len("{hub}"):]
		case hasPrefixFold(rest, "{event}"):
			t.parts = append(t.parts, part{kind: eventParam})
			rest = rest[len("{event}"):]
		case hasPrefixFold(rest, refOpen):
			end := strings.Index(rest, refClose)
			if end < 0 {
				return nil, badTemplate(engine.CodeInvalid, "The URL template of the event handler has a Key Vault reference without an end.",
					fmt.Sprintf("it begins at byte %d and should end with %q", at, refClose))
			}
			uri, err := parseReference(rest[len(refOpen):end])
			if err != nil {
				return nil, err
			}
			t.parts = append(t.parts, part{secretRef, uri})
			t.addRef(uri)
			rest = rest[end+len(refClose):]
		default:
			// Not quoted: what stands here may be part of a code.
			return nil, badTemplate(engine.CodeInvalid, "The URL template of the event handler has a brace that opens or closes nothing known.",
				fmt.Sprintf("at byte %d; known are {hub}, {event} and {@Microsoft.KeyVault(SecretUri=...)}, and a brace that means itself is written %%7B or %%7D", at))
		}
	}

	fixed, known := hostIsFixed(t.parts, nil)
	if !fixed {
		return nil, errParamInHost()
	}
	if !known {
		t.late = true
		return t, nil
	}
	u, err := t.render(placeholders(t.refs), "hub", "event")
	if err != nil {
		return nil, err
	}
	t.scheme = u.Scheme
	return t, nil
}

// placeholders stand for secrets where only the shape of the URL matters.
func placeholders(refs []string) map[string]string {
	m := make(map[string]string, len(refs))
	for _, uri := range refs {
		m[uri] = "x"
	}
	return m
}

func (t *template) addRef(uri string) {
	for _, known := range t.refs {
		if known == uri {
			return
		}
	}
	t.refs = append(t.refs, uri)
}

// parseReference reads what stands between the parentheses of a Key Vault reference.
func parseReference(s string) (uri string, err error) {
	const name = "SecretUri="
	if !hasPrefixFold(s, name) {
		return "", badTemplate(engine.CodeInvalid, "A Key Vault reference in the URL template of the event handler has an unknown form.",
			"the form is {@Microsoft.KeyVault(SecretUri=https://VAULT/secrets/NAME/VERSION)}; the version may be left out")
	}
	uri = s[len(name):]
	u, perr := url.Parse(uri)
	if perr != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		!hasPrefixFold(u.Path, "/secrets/") || len(u.Path) == len("/secrets/") {
		return "", badTemplate(engine.CodeInvalid, "A Key Vault reference in the URL template of the event handler names no secret.",
			"SecretUri should be https://VAULT/secrets/NAME, optionally followed by /VERSION, without a query")
	}
	return uri, nil
}

// hostIsFixed reports whether no parameter begins before the host part ends.
// known is false if that depends on a secret that is not in secrets.
func hostIsFixed(parts []part, secrets map[string]string) (fixed, known bool) {
	var before strings.Builder
	for _, p := range parts {
		switch p.kind {
		case hubParam, eventParam:
			return false, true
		case literal:
			before.WriteString(p.text)
		case secretRef:
			secret, ok := secrets[p.text]
			if !ok {
				return true, false
			}
			before.WriteString(secret)
		}
		if _, afterScheme, found := strings.Cut(before.String(), "://"); found && strings.ContainsAny(afterScheme, "/?#") {
			return true, true
		}
	}
	return true, true
}

// render makes the URL of one event. Every reference must be in secrets.
func (t *template) render(secrets map[string]string, hub, event string) (*url.URL, error) {
	if t.late {
		if fixed, _ := hostIsFixed(t.parts, secrets); !fixed {
			return nil, errParamInHost()
		}
	}
	var b strings.Builder
	for _, p := range t.parts {
		switch p.kind {
		case literal:
			b.WriteString(p.text)
		case hubParam:
			escapeComponent(&b, hub)
		case eventParam:
			escapeComponent(&b, event)
		case secretRef:
			// As it is, since a secret may hold several parameters of a query.
			b.WriteString(secrets[p.text])
		}
	}
	u, err := url.Parse(b.String())
	if err != nil {
		// url.Error repeats the URL, which may hold a code.
		var ue *url.Error
		if errors.As(err, &ue) && len(t.refs) == 0 {
			err = ue.Err
		} else {
			err = nil
		}
		e := badTemplate(engine.CodeInvalid, "The URL template of the event handler does not make a valid URL.",
			"an absolute http:// or https:// URL is needed")
		e.Err = err
		return nil, e
	}
	switch u.Scheme {
	case "http", "https":
	case "tunnel":
		return nil, badTemplate(engine.CodeUnsupported, "Event handlers behind tunnel:// are not supported.",
			"give an http:// or https:// URL that this node can reach")
	default:
		return nil, badTemplate(engine.CodeInvalid, "The URL of the event handler is neither http nor https.",
			"an absolute http:// or https:// URL is needed")
	}
	if u.Hostname() == "" || u.User != nil || u.Opaque != "" {
		return nil, badTemplate(engine.CodeInvalid, "The URL of the event handler needs a host, and no user name or password.",
			"a code belongs into the query: https://HOST/PATH?code=...")
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && forbidden(a) {
		return nil, errForbidden(a)
	}
	u.Fragment, u.RawFragment = "", ""
	u.RawQuery = cleanQuery(u.RawQuery)
	return u, nil
}

// target is where one event goes.
type target struct {
	url *url.URL
	// validation is the URL that must have granted our origin.
	validation *url.URL
	// hidden is what no error or log may show.
	hidden []string
}

// resolve reads the secrets and makes the URLs of an event.
func (t *template) resolve(ctx context.Context, source SecretSource, hub, event string) (*target, error) {
	secrets, err := t.secrets(ctx, source)
	if err != nil {
		return nil, err
	}
	tg := &target{}
	if tg.url, err = t.render(secrets, hub, event); err == nil {
		tg.validation, err = t.render(secrets, hub, "validate")
	}
	if err != nil {
		return nil, internal(err)
	}
	for _, secret := range secrets {
		if secret != "" {
			tg.hidden = append(tg.hidden, secret)
		}
	}
	for _, u := range []*url.URL{tg.url, tg.validation} {
		if u.RawQuery != "" {
			tg.hidden = append(tg.hidden, u.RawQuery)
		}
	}
	if t.late {
		tg.hidden = append(tg.hidden, tg.url.Host, tg.url.Hostname())
	}
	return tg, nil
}

func (t *template) secrets(ctx context.Context, source SecretSource) (map[string]string, error) {
	if len(t.refs) == 0 {
		return nil, nil
	}
	secrets := make(map[string]string, len(t.refs))
	for _, uri := range t.refs {
		s, err := source.Secret(ctx, uri)
		if err != nil {
			return nil, &engine.Error{Code: engine.CodeInternal, Rule: "event.secret",
				Message: "A secret in the URL of the event handler could not be read.", Detail: "secret " + uri, Err: err}
		}
		secrets[uri] = s
	}
	return secrets, nil
}

// safe returns err without anything that t hides; the chain of causes is kept
// where there was nothing to hide.
func (t *target) safe(err error) error {
	var ue *url.Error // what an http.RoundTripper around ours may have made of it
	if errors.As(err, &ue) {
		err = ue.Err
	}
	text := err.Error()
	clean := text
	for _, h := range t.hidden {
		clean = strings.ReplaceAll(clean, h, "...")
	}
	if clean == text {
		return err
	}
	return errors.New(clean)
}

// internal turns a refusal of a template, which is a setting, into the failure
// of an event that met it.
func internal(err error) error {
	var e *engine.Error
	if errors.As(err, &e) {
		c := *e
		c.Code = engine.CodeInternal
		return &c
	}
	return err
}

func badTemplate(code engine.Code, message, detail string) *engine.Error {
	return &engine.Error{Code: code, Rule: "event.template", Target: "urlTemplate", Message: message, Detail: detail}
}

func errParamInHost() *engine.Error {
	return badTemplate(engine.CodeInvalid, "The URL template of the event handler has a parameter in its host part.",
		"{hub} and {event} may stand in the path and in the query only")
}

// escapeComponent percent-encodes all but the unreserved characters of RFC 3986 section 2.3.
func escapeComponent(b *strings.Builder, s string) {
	for i := range len(s) {
		c := s[i]
		if 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("-_.~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(b, "%%%02X", c)
		}
	}
}

// cleanQuery percent-encodes the bytes that cannot stand in a request line or
// in a query (RFC 3986 section 3.4), which net/url lets through.
func cleanQuery(q string) string {
	bad := func(c byte) bool { return c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}", c) >= 0 }
	for i := range len(q) {
		if bad(q[i]) {
			var b strings.Builder
			for j := range len(q) {
				if bad(q[j]) {
					fmt.Fprintf(&b, "%%%02X", q[j])
				} else {
					b.WriteByte(q[j])
				}
			}
			return b.String()
		}
	}
	return q
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
