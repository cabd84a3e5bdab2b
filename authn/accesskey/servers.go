package accesskey

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/internal/audience"
	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
)

// Servers proves application servers by tokens that an access key signed, one
// token for each request URL. It claims every bearer token, so schemes that know
// tokens of their own stand before it.
type Servers struct {
	ring  *Ring
	hosts *authn.Hosts
}

var _ authn.Authorizer = (*Servers)(nil)

// NewServers returns the scheme. hosts are further hosts that tokens may be for;
// it may be nil.
func NewServers(ring *Ring, hosts *authn.Hosts) *Servers { return &Servers{ring, hosts} }

// entraAudience is in the tokens of Microsoft Entra ID for the service.
const entraAudience = "https://webpubsub.azure.com"

// Authorize implements authn.Authorizer. The rules are those of package token,
// and accesskey.disabled where there are no access keys. A request without a
// bearer token is of another kind.
//
// An access key allows everything but the generation of client tokens: whoever
// has one signs them without help.
func (a *Servers) Authorize(_ context.Context, r engine.ServerRequest) (engine.Principal, error) {
	text, err := authn.Bearer(r.Header)
	if err != nil {
		return engine.Principal{}, err
	}
	if !a.ring.LocalAuth() {
		return engine.Principal{}, closed("use a token of Microsoft Entra ID.")
	}
	t, err := token.Verify(text, time.Now(), a.ring)
	if err != nil {
		return engine.Principal{}, err
	}
	if err := a.checkAudience(t, r); err != nil {
		return engine.Principal{}, err
	}
	return engine.Principal{ID: a.ring.name(t.Key()), Scheme: "AccessKey", Allow: allow}, nil
}

func allow(action engine.Action, _ engine.HubName) error {
	if action != engine.ActionGenerateToken {
		return nil
	}
	return &engine.Error{
		Code: engine.CodeUnauthenticated, Rule: "accesskey.generatetoken",
		Message: "A token signed with an access key cannot ask for client tokens: sign them with the key itself, or come with a token of Microsoft Entra ID.",
	}
}

// checkAudience returns nil if the token is for the URL of the request, by the
// rules that the service is known to enforce, which are looser than its documents:
//
//   - http, https, ws and wss are the same, and so are their default ports;
//   - the query of neither counts, nor does letter case, nor how the path is
//     escaped, but for the slash;
//   - the service's own path (authn.Hosts.SetPath) may stand before both, or be missing;
//   - the path may go on behind that of the request, from a boundary on: a token
//     for /api/hubs/chat/connections/x/:send opens /api/hubs/chat/connections/x.
//
// A token that is for Microsoft Entra ID's audience too is none of an access key's.
func (a *Servers) checkAudience(t *token.Token, r engine.ServerRequest) error {
	sent := audience.Path(path(r.Target))
	if len(sent) > 1 {
		sent = strings.TrimSuffix(sent, "/")
	}
	paths := a.hosts.Paths(sent)
	if !slices.Contains(t.Audience(), entraAudience) {
		for _, aud := range t.Audience() {
			host, rest, ok := audience.Split(aud)
			if ok && a.hosts.Accept(host, r.Host) && slices.ContainsFunc(paths, func(want string) bool { return covers(rest, want) }) {
				return nil
			}
		}
	}
	return token.WrongAudience(t, r.Scheme+"://"+r.Host+audience.Path(path(r.Target)), a.hosts)
}

// path returns the path and query of a request target, which may be a whole URL.
func path(target string) string {
	if _, rest, ok := audience.Split(target); ok {
		return rest
	}
	return target
}

// covers reports whether an audience's path, with what follows it, is the path want,
// which is escaped, or goes on behind want at a boundary. The audience may be escaped
// or, as one SDK has it, not escaped at all; in the latter form a question mark may be
// the path's own or begin the query.
func covers(rest, want string) bool {
	plain := audience.Decode(want)
	if n := len(plain); len(rest) >= n && audience.Fold(rest[:n], plain) && (len(rest) == n || rest[n] == '/' || rest[n] == '?') {
		return true
	}
	want = audience.Normal(want)
	path, n := audience.Normal(audience.Path(rest)), len(want)
	return len(path) >= n && audience.Fold(path[:n], want) && (len(path) == n || path[n] == '/')
}
