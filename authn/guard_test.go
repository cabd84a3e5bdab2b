package authn_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/engine"
)

// authorizer is one of a test's own.
type authorizer func(r engine.ServerRequest) (engine.Principal, error)

func (f authorizer) Authorize(_ context.Context, r engine.ServerRequest) (engine.Principal, error) {
	return f(r)
}

// A guard's answer follows from the refusal's code, and from nothing else.
func TestGuardAnswers(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		text   string
	}{
		{engine.Errorf(engine.CodeUnauthenticated, "x.y", "Say please."), 401, `{"error":{"code":"Denied","message":"Denied by the resource provider.","innererror":{"code":"x.y","message":"Say please."}}}`},
		{engine.Errorf(engine.CodeForbidden, "x.y", "No."), 403, `"code":"x.y"`},
		{engine.Errorf(engine.CodeInvalid, "x.y", "No."), 400, `"code":"x.y"`},
		{engine.Errorf(engine.CodeUnavailable, "x.y", "No."), 503, `"code":"x.y"`},
		{errors.New("a secret of ours"), 500, `"code":"guard.failed"`},
	} {
		h := authn.Guard(authorizer(func(engine.ServerRequest) (engine.Principal, error) { return engine.Principal{}, c.err }),
			http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was handed on") }), nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.text) || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%v: %d %s", c.err, w.Code, w.Body)
		}
	}
}

// What a scheme judges is the request as it was sent; a body that it did not ask
// for goes on unread.
func TestGuardRequest(t *testing.T) {
	var seen engine.ServerRequest
	h := authn.Guard(authorizer(func(r engine.ServerRequest) (engine.Principal, error) {
		seen = r
		return engine.Principal{ID: "ann"}, nil
	}), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := authn.Caller(r.Context())
		io.WriteString(w, p.ID+" ")
		io.Copy(w, r.Body)
	}), &authn.GuardOptions{
		MaxBody: 1,
		Origin:  func(*http.Request) (string, string) { return "https", "public.example" },
	})
	w := httptest.NewRecorder()
	r := httptest.NewRequest("PUT", "/a%2Fb/../c?q=%20", strings.NewReader("a long body"))
	h.ServeHTTP(w, r)
	if w.Body.String() != "ann a long body" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if seen.Method != "PUT" || seen.Scheme != "https" || seen.Host != "public.example" || seen.Target != "/a%2Fb/../c?q=%20" {
		t.Errorf("%+v", seen)
	}
	if _, ok := authn.Caller(t.Context()); ok {
		t.Error("a caller where no guard was")
	}
}
