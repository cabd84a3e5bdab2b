package authn_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/engine"
)

var ctx = context.Background()

// scheme is a scheme that always answers the same, and counts how often.
type scheme struct {
	name  string
	err   error
	asked int
}

func (s *scheme) Authenticate(context.Context, engine.Credentials) (engine.Identity, error) {
	s.asked++
	return engine.Identity{UserID: engine.UserID(s.name)}, s.err
}

func (s *scheme) Authorize(context.Context, engine.ServerRequest) (engine.Principal, error) {
	s.asked++
	return engine.Principal{ID: s.name}, s.err
}

func notMine(rule string) error {
	return authn.NotMine(&engine.Error{Code: engine.CodeUnauthenticated, Rule: rule, Message: "Not of the kind " + rule + "."})
}

func refusal(rule string) error {
	return &engine.Error{Code: engine.CodeUnauthenticated, Rule: rule, Message: "Refused."}
}

func ruleOf(err error) string {
	var e *engine.Error
	if errors.As(err, &e) {
		return e.Rule
	}
	return fmt.Sprint(err)
}

// The first scheme that knows the credentials decides, for good or ill.
func TestOrder(t *testing.T) {
	outage := errors.New("key server unreachable")
	for _, tt := range []struct {
		name  string
		errs  []error
		who   string // who let in; empty for a refusal
		rule  string
		asked string
	}{
		{"the first", []error{nil, nil}, "0", "", "[1 0]"},
		{"the second", []error{notMine("a"), nil}, "1", "", "[1 1]"},
		{"a refusal ends it", []error{refusal("a"), nil}, "", "a", "[1 0]"},
		{"a refusal by the second", []error{notMine("a"), refusal("b"), nil}, "", "b", "[1 1 0]"},
		{"an outage ends it", []error{notMine("a"), outage, nil}, "", outage.Error(), "[1 1 0]"},
		{"nobody's", []error{notMine("a"), notMine("b")}, "", "a", "[1 1]"},
		{"nobody's, said bluntly", []error{authn.ErrNotMine, notMine("b")}, "", "authn.none", "[1 1]"},
		{"no schemes", nil, "", "authn.none", "[]"},
	} {
		schemes := make([]*scheme, len(tt.errs))
		clients, servers := make([]authn.Authenticator, len(tt.errs)), make([]authn.Authorizer, len(tt.errs))
		for i, err := range tt.errs {
			schemes[i] = &scheme{name: fmt.Sprint(i), err: err}
			clients[i], servers[i] = schemes[i], schemes[i]
		}
		asked := func() string {
			var n []int
			for _, s := range schemes {
				n = append(n, s.asked)
				s.asked = 0
			}
			return fmt.Sprint(n)
		}
		id, err := authn.Clients(clients...).Authenticate(ctx, engine.Credentials{})
		if n := asked(); n != tt.asked {
			t.Errorf("%s: clients asked %s, want %s", tt.name, n, tt.asked)
		}
		p, err2 := authn.Servers(servers...).Authorize(ctx, engine.ServerRequest{})
		if n := asked(); n != tt.asked {
			t.Errorf("%s: servers asked %s, want %s", tt.name, n, tt.asked)
		}
		for _, err := range []error{err, err2} {
			if tt.rule == "" && err != nil || tt.rule != "" && ruleOf(err) != tt.rule {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		if tt.who != "" && (string(id.UserID) != tt.who || p.ID != tt.who) {
			t.Errorf("%s: in as %q and %q", tt.name, id.UserID, p.ID)
		}
	}
}

// A refusal by nobody is that of the first scheme, with what the others said for
// the log, and lets a chain stand in a chain.
func TestNobody(t *testing.T) {
	inner := authn.Clients(&scheme{err: notMine("a")}, &scheme{err: notMine("b")})
	_, err := inner.Authenticate(ctx, engine.Credentials{})
	var e *engine.Error
	if !errors.As(err, &e) || e.Code != engine.CodeUnauthenticated || e.Message != "Not of the kind a." ||
		!strings.Contains(e.Detail, "b: Not of the kind b.") || !errors.Is(err, authn.ErrNotMine) {
		t.Errorf("%#v", err)
	}
	id, err := authn.Clients(inner, &scheme{name: "last"}).Authenticate(ctx, engine.Credentials{})
	if err != nil || id.UserID != "last" {
		t.Errorf("%v, %v", id, err)
	}
}

// Whoever comes with nothing that a server's schemes know is told what each would have
// taken, and that once.
func TestNobodyAmongServers(t *testing.T) {
	ring := accesskey.NewRing(accesskey.Generate(), accesskey.Key{})
	signed, bearer := accesskey.NewSigned(ring, nil), accesskey.NewServers(ring, nil)
	_, err := authn.Servers(signed, bearer, bearer).Authorize(t.Context(), engine.ServerRequest{})
	e, ok := errors.AsType[*engine.Error](err)
	if !ok || e.Rule != "signed.missing" || strings.Count(e.Message, "HMAC-SHA256") != 1 || strings.Count(e.Message, " Or: ") != 1 || !strings.Contains(e.Message, "Bearer") {
		t.Errorf("got %+v", e)
	}
}

func TestAnonymous(t *testing.T) {
	open := authn.Anonymous{Allow: func(hub engine.HubName) bool { return hub == "open" }}
	for _, tt := range []struct {
		name  string
		a     authn.Anonymous
		c     engine.Credentials
		rule  string
		other bool
	}{
		{"allowed", open, engine.Credentials{Hub: "open"}, "", false},
		{"denied", open, engine.Credentials{Hub: "chat"}, "token.missing", false},
		{"denied by default", authn.Anonymous{}, engine.Credentials{Hub: "open"}, "token.missing", false},
		{"a bad token is not nothing", open, engine.Credentials{Hub: "open", Token: "x"}, "anonymous.token", true},
	} {
		id, err := tt.a.Authenticate(ctx, tt.c)
		if tt.rule == "" {
			if err != nil || id.UserID != "" || id.Scheme != "Anonymous" || id.Claims == nil || len(id.Roles)+len(id.Groups)+len(id.Claims) != 0 {
				t.Errorf("%s: %+v, %v", tt.name, id, err)
			}
			continue
		}
		if ruleOf(err) != tt.rule || errors.Is(err, authn.ErrNotMine) != tt.other || engine.CodeOf(err) != engine.CodeUnauthenticated {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	_, err := authn.Anonymous{}.Authenticate(ctx, engine.Credentials{Hub: "chat"})
	for _, pass := range []string{"chat", "access_token", "Authorization: Bearer"} {
		if !strings.Contains(err.Error(), pass) {
			t.Errorf("%q does not say %q", err, pass)
		}
	}
}

func TestHosts(t *testing.T) {
	var none *authn.Hosts
	if !none.Accept("A:80", "a") || none.Accept("a", "b") || none.String() != "" {
		t.Error("no hosts")
	}
	h, err := authn.NewHosts("GW.example.com:443", "x:81")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host string
		want bool
	}{{"gw.EXAMPLE.com", true}, {"gw.example.com:80", true}, {"x:81", true}, {"x", false}, {"here:8080", true}, {"here", false}} {
		if got := h.Accept(tt.host, "here:8080"); got != tt.want {
			t.Errorf("%s: %v", tt.host, got)
		}
	}
	if err := h.Set("y"); err != nil || h.Accept("x:81", "here") || !h.Accept("y", "here") || h.String() != "y" {
		t.Errorf("after a change: %v, %v", h, err)
	}
	for _, bad := range []string{"", "http://x", "x/y", "u@x", "a b"} {
		if err := h.Set("z", bad); ruleOf(err) != "audience.host" || engine.CodeOf(err) != engine.CodeInvalid || h.String() != "y" {
			t.Errorf("%q: %v, then %v", bad, err, h)
		}
	}
}

// A client that shows nothing is told what else than a token would have passed.
func TestBesides(t *testing.T) {
	closed := authn.Anonymous{Besides: func(hub engine.HubName) string {
		return map[engine.HubName]string{"plant": "a client certificate"}[hub]
	}}
	for hub, want := range map[engine.HubName]string{
		"plant": "or in an Authorization: Bearer header, or show a client certificate.",
		"chat":  "or in an Authorization: Bearer header.",
	} {
		_, err := closed.Authenticate(ctx, engine.Credentials{Hub: hub})
		var e *engine.Error
		if !errors.As(err, &e) || e.Rule != "token.missing" || !strings.HasSuffix(e.Message, want) {
			t.Errorf("%s: %v; want it to end with %q", hub, err, want)
		}
	}
}

// The service's own path may stand before a request's, or be missing there.
func TestHostsPaths(t *testing.T) {
	hosts := new(authn.Hosts)
	if err := hosts.SetPath("/rt"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/api/x": "/api/x /rt/api/x", "/rt/api/x": "/rt/api/x /api/x", "/rt": "/rt /rt/rt", "/rtx/api": "/rtx/api /rt/rtx/api", "/": "/ /rt/",
	} {
		if got := strings.Join(hosts.Paths(path), " "); got != want {
			t.Errorf("%s: %s; want %s", path, got, want)
		}
	}
	for _, bad := range []string{"rt", "/rt/", "/", "/r t", "/r%74", "/rt?x", "/rt#x"} {
		if err := hosts.SetPath(bad); err == nil || len(hosts.Paths("/x")) != 2 {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := hosts.SetPath(""); err != nil || len(hosts.Paths("/x")) != 1 || len((*authn.Hosts)(nil).Paths("/x")) != 1 {
		t.Error("without a path of the service's own there are two")
	}
}
