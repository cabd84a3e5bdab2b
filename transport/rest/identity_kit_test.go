package rest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/rest"
)

const (
	tenant = "87d349ed-44d7-43e1-9a83-5f2406dee5bd"
	ann    = "e5b7f628-ea94-4fdc-b3d9-1af1fe231111"
	app    = "1bfa671a-dc6b-47f3-8940-45c0f1af0fa6"
)

// users keeps users in memory. Its tokens are numbers; standing tells which count.
type users struct {
	mu          sync.Mutex
	created     int
	generations map[engine.UserID]int // of those that there are
	names       map[string]engine.UserID
	tokens      []issued
	assignments map[string]assigned
	down        error // what all calls fail with, if not nil
}

type issued struct {
	id         engine.UserID
	scopes     []string
	lifetime   time.Duration
	generation int
}

type assigned struct {
	kind    string
	clients []string
}

var _ rest.Users = (*users)(nil)

func newUsers() *users {
	return &users{generations: map[engine.UserID]int{}, names: map[string]engine.UserID{}, assignments: map[string]assigned{}}
}

func unknown(rule string) error {
	return engine.Errorf(engine.CodeNotFound, rule, "There is none.")
}

func (u *users) Create(context.Context) (engine.UserID, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down != nil {
		return "", u.down
	}
	return u.make(), nil
}

func (u *users) make() engine.UserID {
	u.created++
	id := engine.UserID(fmt.Sprintf("8:acs:resource_%d", u.created))
	u.generations[id] = 1
	return id
}

func (u *users) Named(_ context.Context, name string) (engine.UserID, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down != nil {
		return "", u.down
	}
	id, ok := u.names[name]
	if _, there := u.generations[id]; !ok || !there {
		id = u.make()
		u.names[name] = id
	}
	return id, nil
}

func (u *users) Issue(_ context.Context, id engine.UserID, scopes []string, lifetime time.Duration) (string, time.Time, error) {
	if lifetime < time.Hour || lifetime > 24*time.Hour || lifetime%time.Minute != 0 {
		return "", time.Time{}, engine.Errorf(engine.CodeInvalid, "user.lifetime", "The lifetime is %s.", lifetime)
	}
	return u.issue(id, scopes, time.Now().Add(lifetime))
}

func (u *users) IssueUntil(_ context.Context, id engine.UserID, scopes []string, end time.Time) (string, time.Time, error) {
	if left := time.Until(end); left < time.Minute || left > 24*time.Hour {
		return "", time.Time{}, engine.Errorf(engine.CodeInvalid, "user.lifetime", "The end is %s ahead.", left)
	}
	return u.issue(id, scopes, end)
}

func (u *users) issue(id engine.UserID, scopes []string, end time.Time) (string, time.Time, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down != nil {
		return "", time.Time{}, u.down
	}
	if len(scopes) == 0 {
		return "", time.Time{}, engine.Errorf(engine.CodeInvalid, "user.scopes", "There is no scope.")
	}
	generation, ok := u.generations[id]
	if !ok {
		return "", time.Time{}, u.missing(id)
	}
	u.tokens = append(u.tokens, issued{id, slices.Clone(scopes), time.Until(end), generation})
	return fmt.Sprint(len(u.tokens) - 1), end, nil
}

// missing is what is said of an id that is nobody's.
func (u *users) missing(id engine.UserID) error {
	if !strings.HasPrefix(string(id), "8:acs:") {
		return &engine.Error{Code: engine.CodeInvalid, Rule: "user.id", Target: "id", Message: fmt.Sprintf("%q is no user's id.", id)}
	}
	return unknown("user.unknown")
}

func (u *users) Revoke(_ context.Context, id engine.UserID) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down != nil {
		return u.down
	}
	if _, ok := u.generations[id]; !ok {
		return u.missing(id)
	}
	u.generations[id]++
	return nil
}

func (u *users) Delete(_ context.Context, id engine.UserID) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down != nil {
		return u.down
	}
	if _, ok := u.generations[id]; !ok {
		return u.missing(id)
	}
	delete(u.generations, id)
	return nil
}

func (u *users) Assignment(_ context.Context, tenant, object string) (string, []string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down != nil {
		return "", nil, u.down
	}
	a, ok := u.assignments[tenant+"/"+object]
	if !ok {
		return "", nil, unknown("assignment.unknown")
	}
	return a.kind, a.clients, nil
}

func (u *users) Assign(_ context.Context, tenant, object, kind string, clients []string) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down != nil {
		return false, u.down
	}
	_, before := u.assignments[tenant+"/"+object]
	u.assignments[tenant+"/"+object] = assigned{kind, slices.Clone(clients)}
	return !before, nil
}

func (u *users) Unassign(_ context.Context, tenant, object string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down != nil {
		return u.down
	}
	if _, ok := u.assignments[tenant+"/"+object]; !ok {
		return unknown("assignment.unknown")
	}
	delete(u.assignments, tenant+"/"+object)
	return nil
}

// standing returns what a token says, and whether it counts.
func (u *users) standing(t *testing.T, token string) (issued, bool) {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	var n int
	if _, err := fmt.Sscan(token, &n); err != nil || n < 0 || n >= len(u.tokens) {
		t.Fatalf("%q is no token", token)
	}
	got := u.tokens[n]
	generation, ok := u.generations[got.id]
	return got, ok && generation == got.generation
}

// entra proves Ann by "ann", and by what a test adds.
type entra map[string]engine.Identity

func (e entra) VerifyUser(_ context.Context, token string) (engine.Identity, error) {
	id, ok := e[token]
	if !ok {
		return id, engine.Errorf(engine.CodeUnauthenticated, "entra.malformed", "This is no token.")
	}
	return id, nil
}

// entraUser is Ann for an hour, with other claims where a test gives some.
func entraUser(lifetime time.Duration, scopes ...string) engine.Identity {
	return engine.Identity{
		Expires: time.Now().Add(lifetime),
		Claims:  map[string][]string{"oid": {ann}, "tid": {tenant}, "appid": {app}, "scp": scopes},
	}
}

// identityAPI is the identity API of some users.
type identityAPI struct {
	t       testing.TB
	users   *users
	auth    *authorizer
	handler http.Handler
	bearer  string
}

func startIdentity(t testing.TB, o *rest.IdentityOptions) *identityAPI {
	s := &identityAPI{t: t, users: newUsers(), auth: &authorizer{}, bearer: "owner"}
	if o == nil {
		o = &rest.IdentityOptions{}
	}
	if o.EntraUsers == nil {
		o.EntraUsers = entra{"ann": entraUser(time.Hour, "Teams.ManageCalls")}
	}
	s.handler = rest.NewIdentityHandler(s.users, s.auth, o)
	return s
}

// do sends "METHOD target" with the newest api-version, unless one is given, and
// headers as "Name: value".
func (s *identityAPI) do(line, body string, headers ...string) reply {
	s.t.Helper()
	method, target, _ := strings.Cut(line, " ")
	if !strings.Contains(target, "?") {
		target += "?api-version=2026-09-23"
	}
	var b io.Reader = http.NoBody
	if body != "" {
		b = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, b)
	r.Header.Set("Authorization", "Bearer "+s.bearer)
	if method != "DELETE" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers { // in place of the usual ones
		name, _, _ := strings.Cut(h, ": ")
		r.Header.Del(name)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if got := w.Header().Get("Api-Supported-Versions"); got != "2021-03-07, 2022-06-01, 2022-10-01, 2023-10-01, 2025-03-02-preview, 2025-06-30, 2026-07-22, 2026-09-23" {
		s.t.Errorf("%s: api-supported-versions is %q", line, got)
	}
	return reply{w.Code, w.Header(), w.Body.String()}
}

// must sends what is answered with a status and a body that v can hold.
func (s *identityAPI) must(status int, v any, line, body string, headers ...string) reply {
	s.t.Helper()
	r := s.do(line, body, headers...)
	if r.status != status {
		s.t.Fatalf("%s %s: %d %s, want %d", line, body, r.status, r.body, status)
	}
	if v != nil {
		d := json.NewDecoder(strings.NewReader(r.body))
		d.DisallowUnknownFields()
		if err := d.Decode(v); err != nil {
			s.t.Fatalf("%s: %s: %v", line, r.body, err)
		}
	}
	return r
}

type token struct{ Token, ExpiresOn string }

type created struct {
	Identity    struct{ ID, CustomID string }
	AccessToken *token
}

// create makes a user.
func (s *identityAPI) create() string {
	s.t.Helper()
	var c created
	s.must(201, &c, "POST /identities", "")
	return c.Identity.ID
}

// failure is an error of the identity API.
type failure struct {
	Code, Message, Target string
	Inner                 *failure `json:"innererror"`
}

func (r reply) failure(t testing.TB) failure {
	t.Helper()
	var body struct{ Error *failure }
	d := json.NewDecoder(strings.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil || body.Error == nil || body.Error.Inner == nil {
		t.Fatalf("%d has the body %q: %v", r.status, r.body, err)
	}
	if r.header.Get("Content-Type") != "application/json" {
		t.Errorf("the Content-Type is %q", r.header.Get("Content-Type"))
	}
	return *body.Error
}
