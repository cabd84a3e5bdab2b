package rest_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
	"github.com/fanfare/fanfare/transport/rest"
)

// authorizer lets in who says so: "Bearer owner" may do everything, "Bearer
// reader" only read, "Bearer writer" only write, "Bearer key" all but mint tokens,
// and others nothing.
type authorizer struct {
	mu   sync.Mutex
	seen engine.ServerRequest
}

func (a *authorizer) Authorize(_ context.Context, r engine.ServerRequest) (engine.Principal, error) {
	a.mu.Lock()
	a.seen = r
	a.mu.Unlock()
	switch http.Header(r.Header).Get("Authorization") {
	case "Bearer owner":
		return engine.Principal{ID: "owner"}, nil
	case "Bearer reader":
		return engine.Principal{ID: "reader", Allow: func(action engine.Action, _ engine.HubName) error {
			if strings.HasSuffix(string(action), "/read") {
				return nil
			}
			return engine.Errorf(engine.CodeForbidden, "role", "The reader may not.")
		}}, nil
	case "Bearer writer":
		return engine.Principal{ID: "writer", Allow: func(action engine.Action, _ engine.HubName) error {
			if strings.HasSuffix(string(action), "/write") {
				return nil
			}
			return engine.Errorf(engine.CodeForbidden, "role", "The writer may not.")
		}}, nil
	case "Bearer key":
		return engine.Principal{ID: "key", Allow: func(action engine.Action, _ engine.HubName) error {
			if action == engine.ActionGenerateToken {
				return engine.Errorf(engine.CodeUnauthenticated, "accesskey.action", "An access key may not mint tokens.")
			}
			return nil
		}}, nil
	case "Bearer hash":
		sum, err := r.BodyHash()
		if err != nil {
			return engine.Principal{}, err
		}
		return engine.Principal{ID: string(sum)}, nil
	}
	return engine.Principal{}, engine.Errorf(engine.CodeUnauthenticated, "token.missing", "No token was sent.")
}

// issuer notes what it is asked for.
type issuer struct {
	id       engine.Identity
	audience string
	lifetime time.Duration
}

func (i *issuer) IssueClientToken(_ context.Context, id engine.Identity, audience string, lifetime time.Duration) (string, error) {
	i.id, i.audience, i.lifetime = id, audience, lifetime
	return "a.b.c", nil
}

type service struct {
	t       *testing.T
	hub     *engine.Hub
	auth    *authorizer
	issuer  *issuer
	handler http.Handler
	bearer  string
}

func start(t *testing.T, o *rest.Options) *service {
	t.Helper()
	e, err := engine.New(&engine.Options{Limits: engine.Limits{MessageBytes: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	s := &service{t: t, hub: e.Hub("chat"), auth: &authorizer{}, issuer: &issuer{}, bearer: "owner"}
	if o == nil {
		o = &rest.Options{Tokens: s.issuer}
	}
	s.handler = rest.NewHandler(e, s.auth, o)
	return s
}

type reply struct {
	status int
	header http.Header
	body   string
}

// code returns the error's code, of the header and, unless it is a reply to
// HEAD, the body too, where both must agree.
func (r reply) fields(t *testing.T) (code, message, target string) {
	t.Helper()
	var e struct{ Code, Message, Target string }
	if r.body != "" {
		if err := json.Unmarshal([]byte(r.body), &e); err != nil {
			t.Fatalf("the body is %q: %v", r.body, err)
		}
		if got := r.header.Get("X-Ms-Error-Code"); got != e.Code {
			t.Errorf("the header says %q, the body %q", got, e.Code)
		}
		return e.Code, e.Message, e.Target
	}
	return r.header.Get("X-Ms-Error-Code"), "", ""
}

// do sends "METHOD target", with headers as "Name: value".
func (s *service) do(line, body string, headers ...string) reply {
	s.t.Helper()
	method, target, _ := strings.Cut(line, " ")
	var b io.Reader = http.NoBody
	if body != "" {
		b = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, b)
	r.Header.Set("Authorization", "Bearer "+s.bearer)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if got := w.Header().Get("Api-Supported-Versions"); got != "2021-10-01, 2022-11-01, 2023-07-01, 2024-01-01, 2024-12-01" {
		s.t.Errorf("%s: api-supported-versions is %q", line, got)
	}
	return reply{w.Code, w.Header(), w.Body.String()}
}

type client struct {
	*engine.Conn
	wire *enginetest.Wire
	t    *testing.T
}

func (s *service) connect(id engine.ConnID, user engine.UserID, groups ...engine.GroupName) *client {
	s.t.Helper()
	a, err := s.hub.Admit(s.t.Context(), &engine.AdmitRequest{
		ConnID: id, Identity: engine.Identity{UserID: user, Groups: groups, Roles: []string{"webpubsub.sendToGroups.**"}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	w := &enginetest.Wire{}
	c, err := a.Open(w, &engine.OpenOptions{Encoding: enginetest.Lines{}, Bind: w.Bind})
	if err != nil {
		s.t.Fatal(err)
	}
	return &client{c, w, s.t}
}

// expect waits for the lines that the client gets after its hello.
func (c *client) expect(want ...string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	var got []string
	err := c.wire.Await(ctx, func(b []byte, _ bool) bool {
		got, _ = enginetest.SplitLines(b)
		return len(got) > len(want)
	})
	if err != nil || !slices.Equal(got[1:], want) {
		c.t.Errorf("got %q, want %q (%v)", got, want, err)
	}
}
