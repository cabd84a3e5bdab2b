package token

import (
	"slices"
	"strings"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/internal/audience"
	"github.com/fanfare/fanfare/engine"
)

// CheckAudience returns nil if the token is for the client endpoint that c was
// sent to: the same host, or one of hosts, and the same path, which must be that
// of c's hub. The scheme and a query make no difference, nor do letter case and
// percent escapes, and the service's own path ([authn.Hosts.SetPath]) may be missing in
// either. That is what the service enforces, as measured by users of
// its SDKs; documents describe it more narrowly.
//
// A client that came by the older form, /client/?hub=chat, needs a token for
// /client/hubs/chat too: a query proves nothing about the hub.
func (t *Token) CheckAudience(c engine.Credentials, hosts *authn.Hosts) error {
	host, rest, ok := audience.Split(c.Audience)
	dir := hubs(audience.Path(rest))
	if ok && dir != "" {
		dirs := hosts.Paths(dir)
		for _, aud := range t.aud {
			h, r, ok := audience.Split(aud)
			path := audience.Decode(audience.Path(r))
			if ok && hosts.Accept(h, host) && slices.ContainsFunc(dirs, func(dir string) bool { return isHub(path, dir, c.Hub) }) {
				return nil
			}
		}
	}
	want := c.Audience
	if dir != "" {
		scheme, _, _ := strings.Cut(c.Audience, "://")
		want = scheme + "://" + host + dir + string(c.Hub)
	}
	return WrongAudience(t, want, hosts)
}

// WrongAudience makes the refusal of a token that is for somebody else. want is
// what it should have been for.
func WrongAudience(t *Token, want string, hosts *authn.Hosts) error {
	got := "nobody"
	if len(t.aud) > 0 {
		quoted := make([]string, 0, 3)
		for _, aud := range t.aud[:min(3, len(t.aud))] {
			quoted = append(quoted, excerpt(aud))
		}
		got = strings.Join(quoted, ", ")
	}
	e := refuse("token.audience", "The token is for %s; here it must be for %s.", got, excerpt(want))
	e.Detail = "Scheme, query and letter case make no difference."
	if names := hosts.String(); names != "" {
		e.Detail += " Hosts also accepted: " + names + "."
	}
	return e
}

// hubs returns the path that precedes the hub's name in a client endpoint, given
// the path a client was sent to.
func hubs(path string) string {
	path = strings.TrimSuffix(path, "/")
	at := strings.LastIndexByte(path, '/')
	if at < 0 {
		return ""
	}
	dir := audience.Decode(path[:at+1])
	const below = "hubs/" // where even a hub called client is no older form
	if audience.Fold(path[at:], "/client") && (len(dir) < len(below) || !audience.Fold(dir[len(dir)-len(below):], below)) {
		return dir + path[at+1:] + "/" + below
	}
	return dir
}

// isHub reports whether path is that of the hub below dir.
func isHub(path, dir string, hub engine.HubName) bool {
	path = strings.TrimSuffix(path, "/")
	return len(path) == len(dir)+len(hub) &&
		audience.Fold(path[:len(dir)], dir) && audience.Fold(path[len(dir):], string(hub))
}
