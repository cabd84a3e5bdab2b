package rest_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/rest"
)

const version = "api-version=2024-12-01"

// Every operation, on a target that exists and on one that does not.
func TestOperations(t *testing.T) {
	const (
		textBody = "Content-Type: text/plain"
		jsonBody = "Content-Type: application/json"
	)
	for _, tt := range []struct {
		line, body string
		headers    []string
		status     int
		code       string
	}{
		{"HEAD /api/health", "", nil, 200, ""},
		{"POST /api/hubs/chat/:generateToken", "", nil, 200, ""},
		{"POST /api/hubs/chat/:send", "hi", []string{textBody}, 202, ""},
		{"POST /api/hubs/empty/:send", "hi", []string{textBody}, 202, ""},
		{"POST /api/hubs/chat/groups/g/:send", "hi", []string{textBody}, 202, ""},
		{"POST /api/hubs/chat/groups/none/:send", "hi", []string{textBody}, 202, ""},
		{"POST /api/hubs/chat/users/ann/:send", "hi", []string{textBody}, 202, ""},
		{"POST /api/hubs/chat/users/none/:send", "hi", []string{textBody}, 202, ""},
		{"POST /api/hubs/chat/connections/c1/:send", "hi", []string{textBody}, 202, ""},
		{"POST /api/hubs/chat/connections/none/:send", "hi", []string{textBody}, 202, ""},
		{"HEAD /api/hubs/chat/connections/c1", "", nil, 200, ""},
		{"HEAD /api/hubs/chat/connections/none", "", nil, 404, "Warning.Connection.NotExisted"},
		{"HEAD /api/hubs/chat/groups/g", "", nil, 200, ""},
		{"HEAD /api/hubs/chat/groups/none", "", nil, 404, "Warning.Group.NotExisted"},
		{"HEAD /api/hubs/chat/users/ann", "", nil, 200, ""},
		{"HEAD /api/hubs/chat/users/none", "", nil, 404, "Warning.User.NotExisted"},
		{"DELETE /api/hubs/chat/connections/c1", "", nil, 204, ""},
		{"DELETE /api/hubs/chat/connections/none", "", nil, 204, ""},
		{"POST /api/hubs/chat/:closeConnections", "", nil, 204, ""},
		{"POST /api/hubs/chat/groups/g/:closeConnections", "", nil, 204, ""},
		{"POST /api/hubs/chat/groups/none/:closeConnections", "", nil, 204, ""},
		{"POST /api/hubs/chat/users/ann/:closeConnections", "", nil, 204, ""},
		{"POST /api/hubs/chat/users/none/:closeConnections", "", nil, 204, ""},
		{"PUT /api/hubs/chat/groups/g/connections/c1", "", nil, 200, ""},
		{"PUT /api/hubs/chat/groups/g/connections/none", "", nil, 404, "Error.Connection.NotExisted"},
		{"DELETE /api/hubs/chat/groups/g/connections/c1", "", nil, 204, ""},
		{"DELETE /api/hubs/chat/groups/g/connections/none", "", nil, 204, ""},
		{"DELETE /api/hubs/chat/connections/c1/groups", "", nil, 204, ""},
		{"DELETE /api/hubs/chat/connections/none/groups", "", nil, 204, ""},
		{"PUT /api/hubs/chat/users/ann/groups/g", "", nil, 200, ""},
		{"PUT /api/hubs/chat/users/none/groups/g", "", nil, 404, ""},
		{"DELETE /api/hubs/chat/users/ann/groups/g", "", nil, 204, ""},
		{"DELETE /api/hubs/chat/users/none/groups/g", "", nil, 204, ""},
		{"DELETE /api/hubs/chat/users/ann/groups", "", nil, 204, ""},
		{"DELETE /api/hubs/chat/users/none/groups", "", nil, 204, ""},
		{"POST /api/hubs/chat/:addToGroups", `{"groups":["x"]}`, []string{jsonBody}, 200, ""},
		{"POST /api/hubs/chat/:addToGroups", `{"groups":["x"],"filter":"userId eq 'none'"}`, []string{jsonBody}, 200, ""},
		{"POST /api/hubs/chat/:removeFromGroups", `{"groups":["x"],"filter":""}`, []string{jsonBody}, 200, ""},
		{"GET /api/hubs/chat/groups/g/connections", "", nil, 200, ""},
		{"GET /api/hubs/chat/groups/none/connections", "", nil, 200, ""},
		{"PUT /api/hubs/chat/permissions/sendToGroup/connections/c1?targetName=g", "", nil, 200, ""},
		{"PUT /api/hubs/chat/permissions/2/connections/none?targetName=g", "", nil, 404, "Info.Connection.NotExisted"},
		{"DELETE /api/hubs/chat/permissions/JOINLEAVEGROUP/connections/c1?targetName=g", "", nil, 204, ""},
		{"DELETE /api/hubs/chat/permissions/1/connections/none?targetName=g", "", nil, 204, ""},
		{"HEAD /api/hubs/chat/permissions/sendToGroup/connections/c1?targetName=g", "", nil, 200, ""},
		{"HEAD /api/hubs/chat/permissions/joinLeaveGroup/connections/c1?targetName=g", "", nil, 404, "Info.Connection.NotExisted"},
		{"HEAD /api/hubs/chat/permissions/sendToGroup/connections/none?targetName=g", "", nil, 404, "Info.Connection.NotExisted"},
	} {
		t.Run(tt.line, func(t *testing.T) {
			s := start(t, nil)
			s.connect("c1", "ann", "g")
			r := s.do(tt.line, tt.body, tt.headers...)
			if r.status != tt.status {
				t.Fatalf("the status is %d, want %d: %s", r.status, tt.status, r.body)
			}
			method, _, _ := strings.Cut(tt.line, " ")
			switch {
			case method == "HEAD", r.status == 202, r.status == 204, r.status == 200 && method == "PUT":
				if r.body != "" {
					t.Errorf("the body is %q", r.body)
				}
			case r.status == 200 && (strings.Contains(tt.line, "addTo") || strings.Contains(tt.line, "removeFrom")):
				if r.body != "" {
					t.Errorf("the body is %q", r.body)
				}
			case r.header.Get("Content-Type") != "application/json":
				t.Errorf("the Content-Type is %q", r.header.Get("Content-Type"))
			}
			if r.status >= 400 {
				if code, _, _ := r.fields(t); code != tt.code {
					t.Errorf("the code is %q, want %q", code, tt.code)
				}
			}
			// A second time does the same, where the operation is safe to repeat.
			if method != "POST" && r.status < 300 {
				if again := s.do(tt.line, tt.body, tt.headers...); again.status != r.status && !strings.HasPrefix(tt.line, "DELETE /api/hubs/chat/connections/c1") {
					t.Errorf("the second time the status is %d", again.status)
				}
			}
		})
	}
}

// What is wrong is named, and nothing happens.
func TestRefusals(t *testing.T) {
	long := strings.Repeat("x", 1025)
	for _, tt := range []struct {
		line, body string
		headers    []string
		status     int
		target     string
		message    string // a part of it
	}{
		{"POST /api/hubs/1chat/:send", "x", nil, 400, "Request", "hub"},
		{"POST /api/hubs/chat/groups/%20/:send", "x", nil, 400, "group", "group"},
		{"POST /api/hubs/chat/groups/" + long + "/:send", "x", nil, 400, "group", "1024"},
		{"POST /api/hubs/chat/users/%20/:send", "x", nil, 400, "Request", "userId"},
		{"POST /api/hubs/chat/users/a%0Ab/:send", "x", nil, 400, "Request", "userId \"a\\nb\" is not valid: expected no control character"},
		{"HEAD /api/hubs/chat/users/%1B%5B2J", "", nil, 400, "", ""},
		{"POST /api/hubs/chat/users/ann%00/:closeConnections", "", nil, 400, "Request", "control character"},
		{"PUT /api/hubs/chat/users/ann%0D/groups/g", "", nil, 400, "Request", "control character"},
		{"POST /api/hubs/chat/:generateToken?userId=ann%0D%0AX-Evil:+1", "", nil, 400, "Request", "control character"},
		{"POST /api/hubs/chat/connections/%20/:send", "x", nil, 400, "Request", "connectionId"},
		{"POST /api/hubs/chat/:send?api-version=2099-01-01", "x", nil, 400, "api-version", "not supported"},
		{"POST /api/hubs/chat/:send?api-version=2021-05-01-preview", "x", nil, 400, "api-version", "not supported"},
		{"POST /api/hubs/chat/:send?" + version + "&" + version, "x", nil, 400, "api-version", "more than once"},
		{"POST /api/hubs/chat/:send?api-version=2024-12-01,2024-12-01", "x", nil, 400, "api-version", "not supported"},
		{"POST /api/hubs/chat/:send?messageTtlSeconds=-1", "x", nil, 400, "Request", "messageTtlSeconds"},
		{"POST /api/hubs/chat/:send?messageTtlSeconds=301", "x", nil, 400, "Request", "0 to 300"},
		{"POST /api/hubs/chat/:send?messageTtlSeconds=x", "x", nil, 400, "Request", "messageTtlSeconds"},
		{"POST /api/hubs/chat/:send?filter=userId+lt+1", "{", []string{"Content-Type: application/xml"}, 400, "Request",
			"Type 'string', expect 'int'. (Parameter 'filter')"},
		{"POST /api/hubs/chat/:send?filter=ab%20eq%201", "x", nil, 400, "Request", "Token 'ab' is not supported."},
		{"POST /api/hubs/chat/:send?filter=not%20length(userId)%20gt%205", "x", nil, 400, "Request", "Type 'null', expect 'bool'."},
		{"POST /api/hubs/chat/:send", "{", []string{"Content-Type: application/json"}, 400, "Request", "not a valid JSON"},
		{"POST /api/hubs/chat/:send", "", []string{"Content-Type: application/json"}, 400, "Request", "not a valid JSON"},
		{"POST /api/hubs/chat/:send", "1 2", []string{"Content-Type: application/json"}, 400, "Request", "not a valid JSON"},
		{"POST /api/hubs/chat/:send", "<a/>", []string{"Content-Type: application/xml"}, 415, "", "application/xml"},
		{"POST /api/hubs/chat/:send", "x", []string{"Content-Type: ;"}, 415, "", ""},
		{"POST /api/hubs/chat/:send", "x", []string{"Content-Type: text/plain; charset=klingon"}, 415, "", "charset"},
		{"POST /api/hubs/chat/:send", "\xff", []string{"Content-Type: text/plain"}, 400, "Request", "UTF-8"},
		{"POST /api/hubs/chat/:send", strings.Repeat("x", 1<<20+1), []string{"Content-Type: text/plain"}, 400, "Request", "Invalid Content-Length header."},
		{"POST /api/hubs/chat/:send", "x", []string{"X-WebPubSub-Metadata-a: " + strings.Repeat("x", 1025)}, 400, "Request", "1024"},
		{"POST /api/hubs/chat/:addToGroups", `{"groups":["a"]}`, nil, 415, "", "application/json"},
		{"POST /api/hubs/chat/:addToGroups", `{"groups":["a"]}`, []string{"Content-Type: text/plain"}, 415, "", "application/json"},
		{"POST /api/hubs/chat/:addToGroups", `{"groups":[]}`, []string{"Content-Type: application/json"}, 400, "Request", "groups"},
		{"POST /api/hubs/chat/:addToGroups", `{}`, []string{"Content-Type: application/json"}, 400, "Request", "groups"},
		{"POST /api/hubs/chat/:addToGroups", `{"groups":[1]}`, []string{"Content-Type: application/json"}, 400, "Request", "groups"},
		{"POST /api/hubs/chat/:addToGroups", `{"groups":[null]}`, []string{"Content-Type: application/json"}, 400, "Request", "groups[0]"},
		{"POST /api/hubs/chat/:addToGroups", `{"groups":[" "]}`, []string{"Content-Type: application/json"}, 400, "group", "group"},
		{"POST /api/hubs/chat/:addToGroups", `{"groups":["a"],"filter":" "}`, []string{"Content-Type: application/json"}, 400, "Request", ""},
		{"POST /api/hubs/chat/:addToGroups", `{"groups":["a"],"filter":1}`, []string{"Content-Type: application/json"}, 400, "Request", "filter"},
		{"POST /api/hubs/chat/:addToGroups", `{`, []string{"Content-Type: application/json"}, 400, "Request", "JSON"},
		{"POST /api/hubs/chat/:generateToken?minutesToExpire=0", "", nil, 400, "Request", "minutesToExpire"},
		{"POST /api/hubs/chat/:generateToken?minutesToExpire=-1", "", nil, 400, "Request", "minutesToExpire"},
		{"POST /api/hubs/chat/:generateToken?minutesToExpire=2147483648", "", nil, 400, "Request", "minutesToExpire"},
		{"POST /api/hubs/chat/:generateToken?clientType=carrier", "", nil, 400, "clientType", "MQTT"},
		{"POST /api/hubs/chat/:generateToken?group=%20", "", nil, 400, "group", "group"},
		{"GET /api/hubs/chat/groups/g/connections?maxpagesize=201", "", nil, 400, "maxpagesize", "1 to 200"},
		{"GET /api/hubs/chat/groups/g/connections?maxpagesize=0", "", nil, 400, "maxpagesize", ""},
		{"GET /api/hubs/chat/groups/g/connections?maxpagesize=", "", nil, 400, "maxpagesize", ""},
		{"GET /api/hubs/chat/groups/g/connections?maxpagesize=1.5", "", nil, 400, "maxpagesize", ""},
		{"GET /api/hubs/chat/groups/g/connections?maxpagesize=1&maxpagesize=1", "", nil, 400, "maxpagesize", "more than once"},
		{"GET /api/hubs/chat/groups/g/connections?top=0", "", nil, 400, "top", ""},
		{"GET /api/hubs/chat/groups/g/connections?top=2147483648", "", nil, 400, "top", ""},
		{"GET /api/hubs/chat/groups/g/connections?continuationToken=", "", nil, 400, "continuationToken", ""},
		{"GET /api/hubs/chat/groups/g/connections?continuationToken=forged", "", nil, 400, "continuationToken", ""},
		{"PUT /api/hubs/chat/permissions/0/connections/c1?targetName=g", "", nil, 400, "Request", "permission"},
		{"PUT /api/hubs/chat/permissions/3/connections/c1?targetName=g", "", nil, 400, "Request", "permission"},
		{"PUT /api/hubs/chat/permissions/a,b/connections/c1?targetName=g", "", nil, 400, "Request", "permission"},
		{"PUT /api/hubs/chat/permissions/sendToGroup/connections/c1", "", nil, 400, "Request", "targetName"},
		{"PUT /api/hubs/chat/permissions/sendToGroup/connections/c1?targetName=", "", nil, 400, "Request", "targetName"},
		{"PUT /api/hubs/chat/permissions/sendToGroup/connections/c1?targetName=%20", "", nil, 400, "Request", "targetName"},
		{"PUT /api/hubs/chat/permissions/sendToGroup/connections/c1?targetName=" + long, "", nil, 400, "Request", "1024"},
		{"GET /api/hubs/chat/:send", "", nil, 405, "", "POST"},
		{"POST /api/health", "", nil, 405, "", "HEAD"},
		{"GET /api/nothing", "", nil, 404, "", "/api/nothing"},
		{"GET /api", "", nil, 404, "", ""},
	} {
		name := tt.line
		if len(name) > 100 {
			name = name[:100]
		}
		t.Run(name, func(t *testing.T) {
			s := start(t, nil)
			c := s.connect("c1", "ann", "g")
			r := s.do(tt.line, tt.body, tt.headers...)
			code, message, target := r.fields(t)
			if r.status != tt.status || target != tt.target || !strings.Contains(message, tt.message) {
				t.Errorf("got %d, target %q, message %q; want %d, %q, %q", r.status, target, message, tt.status, tt.target, tt.message)
			}
			wantCode := map[int]string{400: "Error.BadRequest"}[tt.status]
			if code != wantCode {
				t.Errorf("the code is %q, want %q", code, wantCode)
			}
			if tt.status == 405 && r.header.Get("Allow") != tt.message {
				t.Errorf("Allow is %q", r.header.Get("Allow"))
			}
			s.hub.SendToAll(t.Context(), engine.Payload{Data: []byte("end")}, nil)
			c.expect("text end")
			if ok, _ := s.hub.GroupExists(t.Context(), "a"); ok {
				t.Error("a refused request changed something")
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	s := start(t, nil)
	s.connect("c1", "ann", "g")
	for _, tt := range []struct {
		bearer, line string
		status       int
	}{
		{"nobody", "HEAD /api/health", 200},
		{"nobody", "POST /api/hubs/chat/:closeConnections", 401},
		{"nobody", "HEAD /api/hubs/chat/groups/g", 401},
		{"reader", "HEAD /api/hubs/chat/groups/g", 200},
		{"reader", "HEAD /api/hubs/chat/users/ann", 200},
		{"reader", "HEAD /api/hubs/chat/connections/c1", 200},
		{"reader", "GET /api/hubs/chat/groups/g/connections", 200},
		{"reader", "POST /api/hubs/chat/:closeConnections", 403},
		{"reader", "POST /api/hubs/chat/groups/g/:send", 403},
		{"key", "POST /api/hubs/chat/:generateToken", 401},
		{"key", "POST /api/hubs/chat/groups/g/:send", 202},
		{"hash", "POST /api/hubs/chat/groups/g/:send", 202},
	} {
		s.bearer = tt.bearer
		r := s.do(tt.line, "")
		if r.status != tt.status {
			t.Errorf("%s as %s: %d, want %d", tt.line, tt.bearer, r.status, tt.status)
		}
		switch r.status {
		case 401:
			if got := r.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, `Bearer error="invalid_token", error_description="`) ||
				!strings.Contains(got, "token.missing") && !strings.Contains(got, "accesskey.action") {
				t.Errorf("WWW-Authenticate is %q", got)
			}
		case 403:
			code, message, _ := r.fields(t)
			if code != "Error.Forbidden" || !strings.HasPrefix(message, "Microsoft.SignalRService/WebPubSub/") ||
				!strings.HasSuffix(message, "permission is required to access this API. Please check your role assignments.") {
				t.Errorf("the error is %q, %q", code, message)
			}
			if r.body != "" && !strings.Contains(r.body, `"details":[{"code":"role","message":"The reader may not."}],"inner":{"code":"role"}`) {
				t.Errorf("the body does not say why: %s", r.body)
			}
		}
	}
	if ok, _ := s.hub.ConnExists(t.Context(), "c1"); !ok {
		t.Error("a refused request closed the connection")
	}
}

// An authorizer sees the request as it was sent.
func TestAuthorizerSeesTheRequest(t *testing.T) {
	s := start(t, nil)
	s.bearer = "hash"
	s.do("POST http://rt.example:8080/api/hubs/Chat/groups/a%2Fb+c/:send?"+version+"&filter=", "body", "Content-Type: text/plain")
	got := s.auth.seen
	if got.Method != "POST" || got.Scheme != "http" || got.Host != "rt.example:8080" ||
		got.Target != "/api/hubs/Chat/groups/a%2Fb+c/:send?"+version+"&filter=" {
		t.Errorf("it saw %+v", got)
	}
	want := sha256.Sum256([]byte("body"))
	if sum, err := got.BodyHash(); err != nil || string(sum) != string(want[:]) {
		t.Errorf("the hash is %x, %v", sum, err)
	}
}

// What clients receive of what servers send.
func TestMessages(t *testing.T) {
	s := start(t, nil)
	c := s.connect("c1", "ann", "g", "a/b", "a%2Fb")
	other := s.connect("c2", "bo", "g")
	send := func(where, contentType, body string, headers ...string) {
		t.Helper()
		if contentType != "" {
			headers = append(headers, "Content-Type: "+contentType)
		}
		if r := s.do("POST /api/hubs/CHAT/"+where, body, headers...); r.status != 202 {
			t.Fatalf("%s: %d %s", where, r.status, r.body)
		}
	}
	send(":send", "text/plain; charset=utf-8", "hällo")
	send(":send", "text/plain; charset=iso-8859-1", "h\xe4llo")
	send(":send?excluded=c2&excluded=x,y", "application/json", `{"a":1.0}`)
	send(":send?filter=userId+eq+'ann'", "application/json; charset=utf-8", `"quoted"`)
	send(":send?filter=userId%20eq%20%27ann%27", "application/octet-stream", "bytes")
	send("groups/g/:send?excluded=c2", "", "untyped")
	send("groups/a%2Fb/:send", "text/plain", "a slash")
	send("groups/a%252Fb/:send", "text/plain", "decoded once")
	send("groups/G/:send", "text/plain", "case matters")
	send("users/ann/:send?messageTtlSeconds=300", "text/plain", "")
	send("connections/c1/:send?messageTtlSeconds=0", "text/plain", "to one",
		"X-WebPubSub-Metadata-Trace: first", "X-WebPubSub-Metadata-Trace: a, b")
	c.expect("text hällo", "text hällo", `json {"a":1.0}`, `json "quoted"`, "binary bytes", "binary @g untyped",
		"text @a/b a slash", "text @a%2Fb decoded once", "text ", "text trace=b to one")
	other.expect("text hällo", "text hällo")
}

func TestChunkedBodies(t *testing.T) {
	s := start(t, &rest.Options{MaxBody: 100})
	for size, want := range map[int]int{100: 202, 101: 400} {
		r := httptest.NewRequest("POST", "/api/hubs/chat/:send", strings.NewReader(strings.Repeat("x", size)))
		r.ContentLength = -1
		r.Header.Set("Authorization", "Bearer owner")
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%d bytes: %d, want %d", size, w.Code, want)
		}
	}
}

func TestCloseReason(t *testing.T) {
	s := start(t, nil)
	why := strings.Repeat("r", 200)
	c := s.connect("c1", "ann", "g")
	s.do("DELETE /api/hubs/chat/connections/c1?reason="+why, "")
	c.expect("disconnected Application server closed the connection. Reason: "+why, "close 1000")
	a, kept := s.connect("c2", "ann", "g"), s.connect("c3", "ann", "g")
	s.do("POST /api/hubs/chat/users/ann/:closeConnections?excluded=c3&reason=bye%20%26%20co", "")
	a.expect("disconnected Application server closed the connection. Reason: bye & co", "close 1000")
	s.do("POST /api/hubs/chat/:closeConnections", "")
	kept.expect("disconnected Application server closed the connection.", "close 1000")
}

func TestPaging(t *testing.T) {
	s := start(t, nil)
	for i := range 205 {
		user := engine.UserID("")
		if i%2 == 0 {
			user = "ann"
		}
		s.connect(engine.ConnID(fmt.Sprintf("c%03d", 204-i)), user, "g")
	}
	type page struct {
		Value []struct {
			ConnectionID string
			UserID       *string
		}
		NextLink *string
	}
	get := func(target string) (p page) {
		t.Helper()
		r := s.do("GET "+target, "")
		if r.status != 200 {
			t.Fatalf("%s: %d %s", target, r.status, r.body)
		}
		if err := json.Unmarshal([]byte(r.body), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	const list = "http://rt.example:81/api/hubs/Chat/groups/g/connections"
	follow := func(query string) (ids []string, sizes []int) {
		t.Helper()
		for target := list + query; ; {
			p := get(target)
			sizes = append(sizes, len(p.Value))
			for _, m := range p.Value {
				ids = append(ids, m.ConnectionID)
			}
			if p.NextLink == nil {
				return ids, sizes
			}
			target = *p.NextLink
			u, err := url.Parse(target)
			if err != nil || u.Host != "rt.example:81" || u.Path != "/api/hubs/Chat/groups/g/connections" || u.Query().Get("api-version") != "2024-12-01" {
				t.Fatalf("the next link is %s", target)
			}
		}
	}
	ids, sizes := follow("")
	if !slices.IsSorted(ids) || len(ids) != 205 || !slices.Equal(sizes, []int{200, 5}) {
		t.Errorf("%d ids in pages of %v", len(ids), sizes)
	}
	if _, sizes := follow("?maxpagesize=2&top=5"); !slices.Equal(sizes, []int{2, 2, 1}) {
		t.Errorf("pages of %v", sizes)
	}
	if _, sizes := follow("?top=4"); !slices.Equal(sizes, []int{4}) {
		t.Errorf("pages of %v", sizes)
	}
	first := get(list + "?maxpagesize=3&api-version=2021-10-01")
	if first.Value[0].UserID == nil || first.Value[1].UserID != nil {
		t.Errorf("the users are %v", first.Value)
	}
	// The page goes on behind its last member, even if that one has left.
	s.hub.RemoveFromGroup(t.Context(), "g", engine.ConnID(first.Value[2].ConnectionID))
	if second := get(*first.NextLink); second.Value[0].ConnectionID != "c003" {
		t.Errorf("the second page begins with %s", second.Value[0].ConnectionID)
	}
	// A link is of its group.
	if r := s.do("GET "+strings.Replace(*first.NextLink, "/groups/g/", "/groups/h/", 1), ""); r.status != 400 {
		t.Errorf("another group's link: %d", r.status)
	}
	if r := s.do("GET /api/hubs/chat/groups/none/connections", ""); r.body != `{"value":[],"nextLink":null}` {
		t.Errorf("an empty group lists %s", r.body)
	}
}

func TestGenerateToken(t *testing.T) {
	s := start(t, nil)
	r := s.do("POST http://rt.example/api/hubs/Chat/:generateToken?userId=u%201%2Fx&role=a&role=b,c&minutesToExpire=7&group=g1&group=g%262&clientType=MqTT&"+version, "")
	if r.status != 200 || r.body != `{"token":"a.b.c"}` || r.header.Get("Content-Type") != "application/json" {
		t.Fatalf("got %d %s", r.status, r.body)
	}
	id := s.issuer.id
	if id.UserID != "u 1/x" || !slices.Equal(id.Roles, []string{"a", "b,c"}) || !slices.Equal(id.Groups, []engine.GroupName{"g1", "g&2"}) ||
		s.issuer.lifetime != 7*time.Minute || s.issuer.audience != "http://rt.example/clients/mqtt/hubs/chat" {
		t.Errorf("the issuer was asked for %+v", s.issuer)
	}
	s.do("POST http://rt.example/api/hubs/chat/:generateToken", "")
	if s.issuer.lifetime != time.Hour || s.issuer.audience != "http://rt.example/client/hubs/chat" || s.issuer.id.UserID != "" {
		t.Errorf("the issuer was asked for %+v", s.issuer)
	}
	s.do("POST /api/hubs/chat/:generateToken?minutesToExpire=2147483647&clientType=socketio", "")
	if s.issuer.lifetime != math.MaxInt64 {
		t.Errorf("the lifetime is %v", s.issuer.lifetime)
	}
	none := start(t, &rest.Options{})
	if r := none.do("POST /api/hubs/chat/:generateToken", ""); r.status != 501 {
		t.Errorf("without an issuer: %d", r.status)
	}
}

// Behind a public endpoint with a path of its own, links lead back through it.
func TestPublicEndpoint(t *testing.T) {
	iss := &issuer{}
	s := start(t, &rest.Options{Tokens: iss, PublicEndpoint: "https://rt.example.com/realtime/"})
	s.connect("c1", "", "g")
	s.connect("c2", "", "g")
	r := s.do("GET /api/hubs/chat/groups/g/connections?maxpagesize=1", "")
	if !strings.Contains(r.body, `"nextLink":"https://rt.example.com/realtime/api/hubs/chat/groups/g/connections?api-version=2024-12-01&maxpagesize=1&continuationToken=`) {
		t.Errorf("got %s", r.body)
	}
	s.do("POST /api/hubs/chat/:generateToken", "")
	if iss.audience != "https://rt.example.com/realtime/client/hubs/chat" {
		t.Errorf("the audience is %s", iss.audience)
	}
}

func TestFallback(t *testing.T) {
	s := start(t, &rest.Options{Fallback: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(418) })})
	for path, want := range map[string]int{"/": 418, "/apix": 418, "/api/x": 404, "/client/hubs/chat": 418} {
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}

func TestObserver(t *testing.T) {
	var replies, refusals []string
	s := start(t, &rest.Options{Observer: rest.Observer{
		Replied: func(op string, status int, _ time.Duration) { replies = append(replies, fmt.Sprint(op, " ", status)) },
		Refused: func(op, rule string) { refusals = append(refusals, op+" "+rule) },
	}})
	s.do("POST /api/hubs/chat/:send", "x")
	s.do("GET /api/none", "")
	s.bearer = "nobody"
	s.do("POST /api/hubs/chat/:send", "x")
	if want := []string{"SendToAll 202", " 404", "SendToAll 401"}; !slices.Equal(replies, want) {
		t.Errorf("replies %q, want %q", replies, want)
	}
	if want := []string{"SendToAll token.missing"}; !slices.Equal(refusals, want) {
		t.Errorf("refusals %q, want %q", refusals, want)
	}
}

func TestTooManyPermissions(t *testing.T) {
	s := start(t, nil)
	c := s.connect("c1", "")
	for i := range 1000 {
		if err := s.hub.Grant(t.Context(), c.ID(), engine.SendToGroup, engine.GroupName(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	r := s.do("PUT /api/hubs/chat/permissions/sendToGroup/connections/c1?targetName=more", "")
	if code, _, target := r.fields(t); r.status != 409 || code != "Error.Connection.Conflict" || target != "Connection" {
		t.Errorf("got %d %q %q", r.status, code, target)
	}
}

// FuzzRequest sends what a stranger may send: every answer is one of ours.
func FuzzRequest(f *testing.F) {
	f.Add("POST", "/api/hubs/chat/:send?filter=a", "text/plain; charset=x", "body")
	f.Add("GET", "/api/hubs/chat/groups/g/connections?top=1&maxpagesize=2", "", "")
	e, err := engine.New(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { e.Close() })
	h := rest.NewHandler(e, &authorizer{}, &rest.Options{Tokens: &issuer{}})
	f.Fuzz(func(t *testing.T, method, target, contentType, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/api") {
			return
		}
		r := httptest.NewRequest("GET", "/", strings.NewReader(body))
		r.Method, r.URL, r.RequestURI = method, u, target
		r.Header["Content-Type"] = []string{contentType}
		r.Header.Set("Authorization", "Bearer owner")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != 501 || w.Header().Get("Api-Supported-Versions") == "" && strings.HasPrefix(u.Path, "/api/") {
			t.Errorf("%s %q: %d %s", method, target, w.Code, w.Body)
		}
	})
}

func BenchmarkSendToGroup(b *testing.B) {
	e, err := engine.New(nil)
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	h := rest.NewHandler(e, &authorizer{}, nil)
	body := strings.Repeat("x", 128)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/api/hubs/chat/groups/g/:send?"+version, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer owner")
		r.Header.Set("Content-Type", "text/plain")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 202 {
			b.Fatal(w.Code)
		}
	}
}

func Example() {
	e, _ := engine.New(nil)
	defer e.Close()
	sub, _ := e.Hub("chat").Subscribe(context.Background(), &engine.SubscribeOptions{Groups: []engine.GroupName{"news"}})

	h := rest.NewHandler(e, &authorizer{}, nil)
	r := httptest.NewRequest("POST", "/api/hubs/chat/groups/news/:send", strings.NewReader("hello"))
	r.Header.Set("Authorization", "Bearer owner")
	r.Header.Set("Content-Type", "text/plain")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)

	m, _ := sub.Receive(r.Context())
	fmt.Println(w.Code, string(m.Payload.Data))
	// Output: 202 hello
}

// A filter that cannot be read is refused under one rule, in a query and in a body; in a
// query before the body is looked at.
func TestFiltersHaveOneRule(t *testing.T) {
	s := start(t, nil)
	for _, path := range []string{":send?filter=userId%20lt", "groups/g/:send?filter=userId%20lt", "users/u/:send?filter=userId%20lt", ":addToGroups", ":removeFromGroups"} {
		contentType := "application/json"
		if strings.Contains(path, "filter=") {
			contentType = "not/known"
		}
		r := s.do("POST /api/hubs/chat/"+path, `{"groups":["g"],"filter":"userId lt"}`, "Content-Type: "+contentType)
		if _, message, target := r.fields(t); r.status != 400 || !strings.Contains(r.body, `"inner":{"code":"filter"}`) || target != "Request" || !strings.HasPrefix(message, "Invalid syntax for 'userId lt'") {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
}
