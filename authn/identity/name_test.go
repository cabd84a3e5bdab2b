package identity_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/engine"
)

func named(tb testing.TB, u *identity.Users, name string) engine.UserID {
	tb.Helper()
	id, err := u.Named(tb.Context(), name)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// A name has one user, for as long as that user is there.
func TestNamed(t *testing.T) {
	s := newFrailStore()
	u := newUsers(t, s)
	ann, bo := named(t, u, "ann@example.com"), named(t, u, "bo")
	if again := named(t, u, "ann@example.com"); again != ann || ann == bo {
		t.Errorf("%s, then %s; bo is %s", ann, again, bo)
	}
	old := issue(t, u, ann)
	if err := u.Revoke(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	counts(t, u, old, "user.revoked")
	counts(t, u, issue(t, u, ann), "")
	if again := named(t, u, "ann@example.com"); again != ann {
		t.Errorf("%s is %s after a revocation", ann, again)
	}
	last := issue(t, u, ann)
	if err := u.Delete(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	counts(t, u, last, "user.deleted")
	if users, names := s.keys("user."), s.keys("name."); len(users) != 1 || len(names) != 1 {
		t.Errorf("what is left of bo and ann: %v, %v", users, names)
	}
	if again := named(t, u, "ann@example.com"); again == ann {
		t.Errorf("%s is back", again)
	}
	if got, want := u.Stats(), (identity.Stats{Created: 3, Deleted: 1, Issued: 3, Accepted: 1, Revoked: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Nothing in the store tells a name.
func TestNamesAreHashed(t *testing.T) {
	s := newFrailStore()
	u := newUsers(t, s)
	named(t, u, "ann@example.com")
	if len(s.keys("")) != 2 {
		t.Errorf("keys %v", s.keys(""))
	}
	for _, key := range s.keys("") {
		if value, _, err := s.Get(t.Context(), key); err != nil || strings.Contains(key+string(value), "ann") {
			t.Errorf("%s: %q, %v", key, value, err)
		}
	}
}

func TestNamedRefusals(t *testing.T) {
	s := newFrailStore()
	u := newUsers(t, s)
	for _, name := range []string{"", strings.Repeat("x", identity.MaxName+1)} {
		if _, err := u.Named(t.Context(), name); ruleOf(err) != "user.name" || engine.CodeOf(err) != engine.CodeInvalid {
			t.Errorf("%.10s: %v", name, err)
		}
	}
	named(t, u, strings.Repeat("x", identity.MaxName))
	key := s.keys("name.")[0]
	_, revision, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), key, []byte("?"), revision); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Named(t.Context(), strings.Repeat("x", identity.MaxName)); ruleOf(err) != "user.store" {
		t.Errorf("a record in no known format: %v", err)
	}
}

// All who ask for one name at a time get the same user, on whatever node.
func TestNamedConcurrently(t *testing.T) {
	s := newFrailStore()
	nodes := []*identity.Users{newUsers(t, s), newUsers(t, s)}
	ids := make([]engine.UserID, 32)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() { ids[i], _ = nodes[i%2].Named(t.Context(), "ann") })
	}
	wg.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Fatalf("got %v", ids)
		}
	}
	if users := s.keys("user."); len(users) != 1 {
		t.Errorf("%d users", len(users))
	}
	if made := nodes[0].Stats().Created + nodes[1].Stats().Created; made != 1 {
		t.Errorf("%d were made", made)
	}
}

// While a name's users come and go by many at once, nothing is left over, and who has
// been deleted never comes back.
func TestNamedAndDeletedConcurrently(t *testing.T) {
	s := newFrailStore()
	u := newUsers(t, s)
	var gone sync.Map
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				id, err := u.Named(t.Context(), "ann")
				if err != nil {
					t.Error(err)
					return
				}
				switch err := u.Delete(t.Context(), id); {
				case err == nil:
					if _, twice := gone.Swap(id, true); twice {
						t.Errorf("%s was deleted twice", id)
					}
				case ruleOf(err) != "user.unknown":
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	last := named(t, u, "ann")
	if _, was := gone.Load(last); was {
		t.Errorf("%s is back", last)
	}
	if err := u.Delete(t.Context(), last); err != nil {
		t.Error(err)
	}
	if left := s.keys(""); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

// A process may be killed before or after any of its changes: what it has
// acknowledged holds, the name has one user who lives, and no more is left than one
// record that nobody can find.
func TestNamedCrashes(t *testing.T) {
	for _, story := range []struct {
		name    string
		changes int
		do      func(u *identity.Users, ann engine.UserID) (engine.UserID, error)
		before  func(t *testing.T, s *frailStore, u *identity.Users, ann engine.UserID)
	}{
		{"named first", 2, func(u *identity.Users, _ engine.UserID) (engine.UserID, error) { return u.Named(t.Context(), "bo") }, nil},
		{"named again", 2, func(u *identity.Users, _ engine.UserID) (engine.UserID, error) { return u.Named(t.Context(), "ann") },
			func(t *testing.T, s *frailStore, u *identity.Users, ann engine.UserID) {
				s.breakAfter(1, false) // so that the name leads to nobody
				if err := u.Delete(t.Context(), ann); err != nil {
					t.Fatal(err)
				}
			}},
		{"deleted", 2, func(u *identity.Users, ann engine.UserID) (engine.UserID, error) {
			return "", u.Delete(t.Context(), ann)
		}, nil},
	} {
		for broken := range 2 * story.changes {
			t.Run(fmt.Sprintf("%s, %d", story.name, broken), func(t *testing.T) {
				s := newFrailStore()
				u := newUsers(t, s)
				ann := named(t, u, "ann")
				if story.before != nil {
					story.before(t, s, u, ann)
				}
				s.breakAfter(broken/2, broken%2 == 1)
				told, err := story.do(u, ann)
				if err != nil && !errors.Is(err, errBroken) {
					t.Fatal(err)
				}
				s.fail(false)

				u = newUsers(t, s) // the process's next life
				name := "ann"
				if story.name == "named first" {
					name = "bo"
				}
				after := named(t, u, name)
				if again := named(t, u, name); again != after {
					t.Errorf("%s, then %s", after, again)
				}
				counts(t, u, issue(t, u, after), "")
				switch {
				case err == nil && told != "" && after != told:
					t.Errorf("%s was told, and it is %s", told, after)
				case err == nil && told == "" && after == ann:
					t.Error("who was deleted is there")
				}
				if err := u.Delete(t.Context(), after); err != nil {
					t.Error(err)
				}
				if users := s.keys("user."); len(users) > 2 { // ann of the first story, and one whom nobody knows
					t.Errorf("left are %v", users)
				}
				if left := s.keys("name."); len(left) > 1 || story.name != "named first" && len(left) > 0 {
					t.Errorf("left are %v", left)
				}
			})
		}
	}
}
