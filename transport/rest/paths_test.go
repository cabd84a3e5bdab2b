package rest_test

import (
	"strings"
	"testing"
)

// A segment of a path is percent-decoded once, so that a name with a slash is the same
// in a path and in a body, for each operation and each kind of name.
func TestNamesWithSlashes(t *testing.T) {
	s := start(t, nil)
	ann := s.connect("c/1", "a/nn")
	s.connect("c%2F1", "a%2Fnn")
	do := func(status int, line, body string) reply {
		t.Helper()
		r := s.do(line, body, "Content-Type: application/json")
		if r.status != status {
			t.Errorf("%s: %d %s; want %d", line, r.status, r.body, status)
		}
		return r
	}
	const hub = "/api/hubs/chat/"
	list := func(group string) string { return do(200, "GET "+hub+"groups/"+group+"/connections", "").body }
	const slash, escape = `{"connectionId":"c/1","userId":"a/nn"}`, `{"connectionId":"c%2F1","userId":"a%2Fnn"}`

	// In a path and in a body.
	do(200, "POST "+hub+":addToGroups", `{"groups":["home/temp"],"filter":"userId eq 'a/nn'"}`)
	do(200, "PUT "+hub+"groups/home%252Ftemp/connections/c%252F1", "")
	if got := list("home%2ftemp"); !strings.Contains(got, slash) || strings.Contains(got, escape) {
		t.Errorf("home/temp has %s", got)
	}
	if got := list("home%252Ftemp"); !strings.Contains(got, escape) || strings.Contains(got, slash) {
		t.Errorf("home%%2Ftemp has %s", got)
	}
	do(404, "HEAD "+hub+"groups/home%25252Ftemp", "")

	// Groups.
	do(202, "POST "+hub+"groups/home%2Ftemp/:send", `1`)
	do(202, "POST "+hub+"groups/home%252Ftemp/:send", `"not for ann"`)
	do(200, "HEAD "+hub+"groups/home%2Ftemp", "")
	// Users.
	do(202, "POST "+hub+"users/a%2Fnn/:send", `2`)
	do(202, "POST "+hub+"users/a%252Fnn/:send", `"not for ann"`)
	do(200, "HEAD "+hub+"users/a%2Fnn", "")
	do(404, "HEAD "+hub+"users/a%25252Fnn", "")
	do(200, "PUT "+hub+"users/a%2Fnn/groups/x%2Fy", "")
	do(202, "POST "+hub+"groups/x%2Fy/:send", `3`)
	do(204, "DELETE "+hub+"users/a%2Fnn/groups/x%2Fy", "")
	do(202, "POST "+hub+"groups/x%2Fy/:send", `"left"`)
	do(204, "DELETE "+hub+"users/a%2Fnn/groups", "")
	do(202, "POST "+hub+"groups/home%2Ftemp/:send", `"left"`)
	// Connections.
	do(202, "POST "+hub+"connections/c%2F1/:send", `4`)
	do(200, "HEAD "+hub+"connections/c%2F1", "")
	do(200, "PUT "+hub+"groups/x%2Fy/connections/c%2F1", "")
	do(204, "DELETE "+hub+"groups/x%2Fy/connections/c%2F1", "")
	do(204, "DELETE "+hub+"connections/c%2F1/groups", "")
	do(404, "HEAD "+hub+"groups/x%2Fy", "")
	// Permissions, whose groups are in the query.
	permission := hub + "permissions/joinLeaveGroup/connections/c%2F1?targetName=home/temp"
	do(404, "HEAD "+permission, "")
	do(200, "PUT "+permission, "")
	do(200, "HEAD "+strings.Replace(permission, "home/temp", "home%2Ftemp", 1), "")
	do(404, "HEAD "+strings.Replace(permission, "home/temp", "home%252Ftemp", 1), "")
	do(204, "DELETE "+permission, "")

	ann.expect("json @home/temp 1", "json 2", "json @x/y 3", "json 4")
	do(204, "POST "+hub+"groups/home%2Ftemp/:closeConnections", "")
	do(204, "POST "+hub+"users/a%2Fnn/:closeConnections", "")
	do(404, "HEAD "+hub+"users/a%2Fnn", "")
	do(204, "DELETE "+hub+"connections/c%252F1", "")
	do(404, "HEAD "+hub+"connections/c%252F1", "")
	// A hub's name holds no slash, however it is written.
	do(400, "POST /api/hubs/ch%2Fat/:send", "1")
	do(400, "POST /api/hubs/ch%252Fat/:send", "1")
}

// Links to the next page keep the name as the caller wrote it.
func TestPagingKeepsEscapedNames(t *testing.T) {
	s := start(t, nil)
	s.connect("c1", "", "home/temp")
	s.connect("c2", "", "home/temp")
	r := s.do("GET http://rt.example/api/hubs/chat/groups/home%2Ftemp/connections?maxpagesize=1", "")
	_, link, _ := strings.Cut(r.body, `"nextLink":"`)
	link, _, _ = strings.Cut(link, `"`)
	if !strings.HasPrefix(link, "http://rt.example/api/hubs/chat/groups/home%2Ftemp/connections?") {
		t.Fatalf("the next link is %q", link)
	}
	if r := s.do("GET "+link, ""); r.status != 200 || !strings.Contains(r.body, `"c2"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
}
