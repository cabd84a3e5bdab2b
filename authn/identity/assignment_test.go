package identity_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/engine"
)

const (
	tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	object = "00000000-0000-0000-0000-00000000000a"
)

func clientIDs(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("04b07795-8ddb-461a-bbee-%012x", i)
	}
	return list
}

// An assignment is set, replaced and removed.
func TestAssignments(t *testing.T) {
	s := newFrailStore()
	u := newUsers(t, s)
	ctx := t.Context()
	is := func(object, principal string, clients []string) {
		t.Helper()
		gotPrincipal, gotClients, err := u.Assignment(ctx, tenant, object)
		if principal == "" {
			if ruleOf(err) != "assignment.unknown" || engine.CodeOf(err) != engine.CodeNotFound {
				t.Errorf("%s, %v, %v", gotPrincipal, gotClients, err)
			}
			return
		}
		if err != nil || gotPrincipal != principal || !slices.Equal(gotClients, clients) {
			t.Errorf("%s, %v, %v; want %s, %v", gotPrincipal, gotClients, err, principal, clients)
		}
	}
	is(object, "", nil)
	most := clientIDs(identity.MaxClientIDs)
	for i, c := range []struct {
		principal string
		clients   []string
		want      []string
	}{
		{identity.PrincipalUser, most[:1], most[:1]},
		{identity.PrincipalResourceAccount, most, most},
		{identity.PrincipalUser, nil, nil},
		{identity.PrincipalUser, []string{strings.ToUpper(most[3]), most[1], most[3]}, []string{most[3], most[1]}},
	} {
		if created, err := u.Assign(ctx, strings.ToUpper(tenant), object, c.principal, c.clients); err != nil || created != (i == 0) {
			t.Errorf("%d: created %v, %v", i, created, err)
		}
		is(strings.ToUpper(object), c.principal, c.want)
	}
	is("00000000-0000-0000-0000-00000000000b", "", nil)
	for _, key := range s.keys("") {
		if !strings.HasPrefix(key, "assignment.") || strings.Contains(key, tenant[:8]) {
			t.Errorf("key %s", key)
		}
	}
	if err := u.Unassign(ctx, tenant, object); err != nil {
		t.Error(err)
	}
	is(object, "", nil)
	if err := u.Unassign(ctx, tenant, object); ruleOf(err) != "assignment.unknown" {
		t.Error(err)
	}
	if created, err := u.Assign(ctx, tenant, object, identity.PrincipalUser, most[:1]); err != nil || !created {
		t.Errorf("created %v, %v", created, err)
	}
}

func TestAssignmentRefusals(t *testing.T) {
	s := newFrailStore()
	u := newUsers(t, s)
	one := clientIDs(1)
	for _, c := range []struct {
		tenant, object, principal string
		clients                   []string
		rule                      string
	}{
		{"contoso", object, "user", one, "assignment.id"},
		{tenant, "", "user", one, "assignment.id"},
		{tenant, strings.ReplaceAll(object, "-", ""), "user", one, "assignment.id"},
		{"{" + tenant + "}", object, "user", one, "assignment.id"},
		{tenant, object, "group", one, "assignment.principal"},
		{tenant, object, "", one, "assignment.principal"},
		{tenant, object, "user", clientIDs(identity.MaxClientIDs + 1), "assignment.clients"},
		{tenant, object, "user", []string{one[0], "x"}, "assignment.clients"},
	} {
		if _, err := u.Assign(t.Context(), c.tenant, c.object, c.principal, c.clients); ruleOf(err) != c.rule || engine.CodeOf(err) != engine.CodeInvalid {
			t.Errorf("%v: %v", c, err)
		}
		if c.rule != "assignment.id" {
			continue
		}
		if _, _, err := u.Assignment(t.Context(), c.tenant, c.object); ruleOf(err) != c.rule {
			t.Errorf("%v: %v", c, err)
		}
		if err := u.Unassign(t.Context(), c.tenant, c.object); ruleOf(err) != c.rule {
			t.Errorf("%v: %v", c, err)
		}
	}
	s.fail(true)
	_, _, read := u.Assignment(t.Context(), tenant, object)
	_, written := u.Assign(t.Context(), tenant, object, "user", one)
	for _, err := range []error{read, written, u.Unassign(t.Context(), tenant, object)} {
		if ruleOf(err) != "user.store" || !errors.Is(err, errBroken) {
			t.Error(err)
		}
	}
}

// Of many who set one assignment at a time one has created it, and one's is whole.
func TestAssignmentsConcurrently(t *testing.T) {
	u := newUsers(t, identity.NewMemoryStore())
	var created atomic.Int64
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			first, err := u.Assign(t.Context(), tenant, object, "user", clientIDs(n+1))
			if err != nil {
				t.Error(err)
			}
			if first {
				created.Add(1)
			}
		})
	}
	wg.Wait()
	_, clients, err := u.Assignment(t.Context(), tenant, object)
	if n := len(clients); err != nil || n == 0 || !slices.Equal(clients, clientIDs(n)) || created.Load() != 1 {
		t.Errorf("%d clients, %d created, %v", n, created.Load(), err)
	}
}
