package identity_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/identity/filestore"
	"github.com/fanfare/fanfare/engine"
)

var (
	primary     = []byte("the primary access key of the service")
	secondary   = []byte("the secondary access key of the service")
	regenerated = []byte("the access key that came after the primary")
)

// node is one that follows the keys of a store.
type node struct {
	*identity.Users
	keys *identity.Keys
	end  func() // of following, and waits for it
}

// follow returns a node that does so until the end of the test, or n.end.
func follow(t *testing.T, s identity.Store, o *identity.KeysOptions, secrets ...[]byte) *node {
	t.Helper()
	n := start(t, s, o, secrets...)
	synctest.Wait()
	return n
}

// start is follow, for several at a time.
func start(t *testing.T, s identity.Store, o *identity.KeysOptions, secrets ...[]byte) *node {
	t.Helper()
	k, err := identity.OpenKeys(t.Context(), s, o, secrets...)
	if err != nil {
		t.Error(err)
		return nil
	}
	n := &node{Users: newUsers(t, s, k.Current()...), keys: k}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.keys.Follow(ctx, n.Users) }() // ends with ctx
	n.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("following ends with %v", err)
		}
	})
	t.Cleanup(n.end)
	return n
}

// published returns the ids of the keys that readers see.
func published(t *testing.T, u *identity.Users) []string {
	t.Helper()
	w := httptest.NewRecorder()
	u.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil {
		t.Fatal(err)
	}
	ids := []string{}
	for _, k := range set.Keys {
		if ids = append(ids, k["kid"]); k["d"] != "" {
			t.Errorf("published: %v", k)
		}
	}
	return ids
}

// signer returns the id of the key that signs.
func signer(t *testing.T, u *identity.Users) string {
	t.Helper()
	return part(t, issue(t, u, named(t, u, "ann")), 0)["kid"].(string)
}

// are checks which keys there are, the signer first.
func are(t *testing.T, u *identity.Users, want ...string) {
	t.Helper()
	if got := published(t, u); !slices.Equal(got, want) {
		t.Errorf("published are %v; want %v", got, want)
	}
	if got := signer(t, u); got != want[0] {
		t.Errorf("%s signs; want %s", got, want[0])
	}
}

// pass lets time pass, and what is due then happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

const month = identity.DefaultEvery

// A key is published before it signs, and counts until its last token has expired.
func TestKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFrailStore()
		n := follow(t, s, nil, primary)
		one := published(t, n.Users)[0]
		are(t, n.Users, one)
		ann := named(t, n.Users, "ann")

		pass(month - 10*time.Minute - time.Second)
		are(t, n.Users, one)
		pass(time.Second)
		both := published(t, n.Users)
		if len(both) != 2 {
			t.Fatalf("published are %v", both)
		}
		two := both[1]
		are(t, n.Users, one, two)
		pass(10*time.Minute - time.Second)
		are(t, n.Users, one, two)
		last, expires, err := n.Issue(t.Context(), ann, chat, 0)
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		are(t, n.Users, two, one)
		pass(time.Until(expires) - time.Second)
		counts(t, n.Users, last, "")
		pass(time.Second)
		counts(t, n.Users, last, "user.expired")
		pass(5*time.Minute + time.Second)
		are(t, n.Users, two)
		counts(t, n.Users, last, "user.kid")
		if left := s.keys("key."); len(left) != 1 {
			t.Errorf("the store has %v", left)
		}

		for range 24 { // all places of the store and more
			pass(month)
			if got := published(t, n.Users); len(got) > 2 || len(s.keys("key.")) != len(got) {
				t.Errorf("published are %v of %v", got, s.keys("key."))
			}
			counts(t, n.Users, issue(t, n.Users, ann), "")
		}
		if st := n.keys.Stats(); st.Made != 26 || st.Removed != 25 && st.Removed != 24 || st.Failures != 0 || st.Keys != int64(len(published(t, n.Users))) {
			t.Errorf("%+v", st)
		}
	})
}

// The shortest interval keeps within the places of a store.
func TestKeysOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFrailStore()
		n := follow(t, s, &identity.KeysOptions{Every: identity.MinEvery})
		ann := named(t, n.Users, "ann")
		var day []string // the tokens of the last 24 hours
		for range 40 {
			text, _, err := n.Issue(t.Context(), ann, chat, 0)
			if err != nil {
				t.Fatal(err)
			}
			if day = append(day, text); len(day) > 4 {
				day = day[1:]
			}
			pass(identity.MinEvery - time.Second)
			for _, text := range day {
				counts(t, n.Users, text, "")
			}
			pass(time.Second)
		}
		if st := n.keys.Stats(); st.Made < 40 || st.Made > 42 || st.Failures != 0 || st.Keys > 8 {
			t.Errorf("%+v", st)
		}
	})
}

// All nodes on one store have the same keys, whoever makes them.
func TestKeysShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFrailStore()
		nodes := make([]*node, 4)
		var wg sync.WaitGroup
		for i := range nodes { // at the same time
			wg.Go(func() { nodes[i] = start(t, s, nil, primary) })
		}
		wg.Wait()
		for range 5 {
			synctest.Wait()
			want := published(t, nodes[0].Users)
			for _, n := range nodes {
				are(t, n.Users, want...)
			}
			// A token of each counts at all others.
			for _, from := range nodes {
				text := issue(t, from.Users, named(t, from.Users, "ann"))
				for _, at := range nodes {
					counts(t, at.Users, text, "")
				}
			}
			pass(month / 3)
		}
		var made, removed int64
		for _, n := range nodes {
			made, removed = made+n.keys.Stats().Made, removed+n.keys.Stats().Removed
		}
		if made != 2 || removed != 1 || len(s.keys("key.")) != 1 {
			t.Errorf("%d made, %d removed, %v in the store", made, removed, s.keys("key."))
		}
	})
}

// Keys outlive a node. One that comes back late has its successor wait all the same.
func TestKeysReopened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFrailStore()
		n := follow(t, s, nil, primary)
		one := signer(t, n.Users)
		n.end()
		n = follow(t, s, nil, primary)
		are(t, n.Users, one)
		n.end()

		pass(3 * month)
		n = follow(t, s, nil, primary)
		two := published(t, n.Users)[1]
		are(t, n.Users, one, two)
		pass(10*time.Minute - time.Second)
		are(t, n.Users, one, two)
		pass(time.Second)
		are(t, n.Users, two, one)
		n.end()

		pass(2 * 24 * time.Hour) // one's end has passed meanwhile
		n = follow(t, s, nil, primary)
		are(t, n.Users, two)
		if left := s.keys("key."); len(left) != 1 {
			t.Errorf("the store has %v", left)
		}
	})
}

// A key counts no more when the access key that it is bound to has left the service.
func TestKeysAreBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFrailStore()
		n := follow(t, s, nil, primary, secondary)
		bind := func(secrets ...[]byte) {
			t.Helper()
			if err := n.keys.Bind(t.Context(), secrets...); err != nil {
				t.Fatal(err)
			}
		}
		ann := named(t, n.Users, "ann")
		text := issue(t, n.Users, ann)

		bind(primary, regenerated) // the secondary is another
		counts(t, n.Users, text, "")
		bind(regenerated, primary) // the two change places
		counts(t, n.Users, text, "")
		bind(regenerated, secondary)
		counts(t, n.Users, text, "user.kid") // without any time having passed
		counts(t, n.Users, issue(t, n.Users, ann), "")
		if left := s.keys("key."); len(left) != 1 {
			t.Errorf("the store has %v", left)
		}
		bind(primary) // it comes back, its keys do not
		counts(t, n.Users, text, "user.kid")

		// A published key that has not signed is bound too.
		pass(month - 5*time.Minute)
		if got := published(t, n.Users); len(got) != 2 {
			t.Fatalf("published are %v", got)
		}
		text = issue(t, n.Users, ann)
		bind(secondary)
		if got := published(t, n.Users); len(got) != 1 {
			t.Errorf("published are %v", got)
		}
		counts(t, n.Users, text, "user.kid")

		// A change while no node runs.
		text = issue(t, n.Users, ann)
		n.end()
		n = follow(t, s, nil, secondary)
		counts(t, n.Users, text, "")
		n.end()
		n = follow(t, s, nil, primary)
		counts(t, n.Users, text, "user.kid")
		if left := s.keys("key."); len(left) != 1 {
			t.Errorf("the store has %v", left)
		}
	})
}

// The key that signs gets a successor when another access key is primary, so that the
// regeneration of the old one ends nothing, however soon they changed places again.
func TestKeysFollowThePrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := follow(t, identity.NewMemoryStore(), nil, primary, secondary)
		bind := func(secrets ...[]byte) {
			t.Helper()
			if err := n.keys.Bind(t.Context(), secrets...); err != nil {
				t.Fatal(err)
			}
		}
		ann := named(t, n.Users, "ann")
		one := signer(t, n.Users)
		bind(secondary, primary)
		two := published(t, n.Users)[1]
		are(t, n.Users, one, two)
		pass(5 * time.Minute)
		bind(regenerated, secondary) // two, which has not signed yet, has to
		are(t, n.Users, two, published(t, n.Users)[1])
		pass(10 * time.Minute)
		text := issue(t, n.Users, ann)
		bind(regenerated)
		counts(t, n.Users, text, "")

		bind(primary, regenerated)
		bind(regenerated, primary) // and back, before the successor signs
		pass(20 * time.Minute)     // until its own successor does
		text = issue(t, n.Users, ann)
		bind(regenerated)
		counts(t, n.Users, text, "")
	})
}

// Access keys that change places all the time take all places of the store, and no more
// than that comes of it.
func TestKeysPlacesAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFrailStore()
		n := follow(t, s, nil, primary, secondary)
		ann := named(t, n.Users, "ann")
		refused := 0
		for i := range 60 {
			secrets := [][]byte{primary, secondary}
			if i%2 == 0 {
				slices.Reverse(secrets)
			}
			if err := n.keys.Bind(t.Context(), secrets...); err != nil {
				refused++
			}
			counts(t, n.Users, issue(t, n.Users, ann), "")
			pass(11 * time.Minute)
		}
		if places := len(s.keys("key.")); refused == 0 || refused == 60 || places != 16 {
			t.Errorf("%d were refused, and %d places are taken", refused, places)
		}
		pass(48 * time.Hour)
		if got, left := published(t, n.Users), s.keys("key."); len(got) != 1 || len(left) != 1 {
			t.Errorf("published are %v of %v", got, left)
		}
	})
}

// Without access keys a key is bound to none, and stays when there are some again.
func TestKeysBoundToNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := follow(t, identity.NewMemoryStore(), nil, nil, []byte{})
		ann := named(t, n.Users, "ann")
		text := issue(t, n.Users, ann)
		for _, secrets := range [][][]byte{{primary}, {secondary}, nil} {
			if err := n.keys.Bind(t.Context(), secrets...); err != nil {
				t.Fatal(err)
			}
			counts(t, n.Users, text, "")
		}
		if err := n.keys.Bind(t.Context(), primary); err != nil {
			t.Fatal(err)
		}
		pass(month) // the next one is bound
		text = issue(t, n.Users, ann)
		counts(t, n.Users, text, "")
		if err := n.keys.Bind(t.Context()); err != nil {
			t.Fatal(err)
		}
		counts(t, n.Users, text, "user.kid")
	})
}

// Nodes turn to other access keys one after the other. Each keeps to its own, and they
// do not remove each other's keys for ever.
func TestKeysOfNodesThatTurnLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFrailStore()
		early, late := follow(t, s, nil, primary), follow(t, s, nil, primary)
		ann := named(t, early.Users, "ann")
		text := issue(t, early.Users, ann)
		if err := early.keys.Bind(t.Context(), regenerated); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		counts(t, early.Users, text, "user.kid")
		counts(t, late.Users, text, "user.kid") // its key is gone for all
		for range 3 {
			pass(time.Hour)
			for _, n := range []*node{early, late} {
				counts(t, n.Users, issue(t, n.Users, ann), "")
			}
		}
		if made := early.keys.Stats().Made + late.keys.Stats().Made; made != 3 {
			t.Errorf("%d keys were made", made)
		}
		if err := late.keys.Bind(t.Context(), regenerated); err != nil {
			t.Fatal(err)
		}
		are(t, late.Users, published(t, early.Users)...)
		if left := s.keys("key."); len(left) != 1 {
			t.Errorf("the store has %v", left)
		}
	})
}

// A node that never turned, and is gone, leaves a key that is removed in the end.
func TestKeysLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFrailStore()
		early := follow(t, s, nil, primary)
		late := follow(t, s, nil, primary)
		if err := early.keys.Bind(t.Context(), regenerated); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		late.end()
		if left := s.keys("key."); len(left) != 2 {
			t.Fatalf("the store has %v", left)
		}
		pass(2*month + 48*time.Hour)
		if got, left := published(t, early.Users), s.keys("key."); len(got) != 1 || len(left) != 1 {
			t.Errorf("published are %v of %v", got, left)
		}
	})
}

// A store that fails changes nothing but that there may be no keys; when it is back all
// is well within a minute.
func TestKeysOfFailingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFrailStore()
		n := follow(t, s, nil, primary)
		ann := named(t, n.Users, "ann")
		one := signer(t, n.Users)

		s.fail(true)
		pass(month)
		if got := published(t, n.Users); !slices.Equal(got, []string{one}) {
			t.Errorf("published are %v; want %v", got, one)
		}
		if st := n.keys.Stats(); st.Failures < 2 || st.Failures > 30 {
			t.Errorf("%d failures", st.Failures)
		}
		s.fail(false)
		pass(time.Minute)
		if got := published(t, n.Users); len(got) != 2 || got[0] != one {
			t.Errorf("published are %v", got)
		}

		text := issue(t, n.Users, ann)
		s.fail(true)
		if err := n.keys.Bind(t.Context(), regenerated); !errors.Is(err, errBroken) {
			t.Error(err)
		}
		if got := published(t, n.Users); len(got) != 0 {
			t.Errorf("published are %v", got)
		}
		if got := n.keys.Current(); len(got) != 0 {
			t.Errorf("current are %v", got)
		}
		synctest.Wait()
		s.breakAfter(0, true) // changes fail, and the first happens all the same
		counts(t, n.Users, text, "user.kid")
		if _, _, err := n.Issue(t.Context(), ann, chat, 0); ruleOf(err) != "user.store" {
			t.Error(err)
		}
		s.fail(false)
		pass(time.Minute)
		counts(t, n.Users, text, "user.kid")
		counts(t, n.Users, issue(t, n.Users, ann), "")
		if left := s.keys("key."); len(left) != 1 {
			t.Errorf("the store has %v", left)
		}
	})
}

// A process may be killed before or after any change of its keys.
func TestKeysCrashes(t *testing.T) {
	for broken := range 4 {
		synctest.Test(t, func(t *testing.T) {
			s := newFrailStore()
			n := follow(t, s, nil, primary)
			ann := named(t, n.Users, "ann")
			pass(month - 10*time.Minute - time.Second)
			text, _, err := n.Issue(t.Context(), ann, chat, 0)
			if err != nil {
				t.Fatal(err)
			}
			s.breakAfter(broken/2, broken%2 == 1)
			pass(10*time.Minute + time.Second)
			n.end()
			s.fail(false)
			n = follow(t, s, nil, primary)
			pass(10 * time.Minute)
			counts(t, n.Users, text, "")
			if got := published(t, n.Users); len(got) != 2 {
				t.Errorf("%d: published are %v", broken, got)
			}
			pass(24*time.Hour + 5*time.Minute)
			if got, left := published(t, n.Users), s.keys("key."); len(got) != 1 || len(left) != 1 {
				t.Errorf("%d: published are %v of %v", broken, got, left)
			}
		})
	}
}

// Another algorithm is turned to like another key.
func TestKeysAlgorithm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFrailStore()
		n := follow(t, s, nil, primary)
		ann := named(t, n.Users, "ann")
		one := signer(t, n.Users)
		pass(time.Hour)
		text := issue(t, n.Users, ann)
		n.end()
		n = follow(t, s, &identity.KeysOptions{Algorithm: identity.RS256}, primary)
		two := published(t, n.Users)[1]
		are(t, n.Users, one, two)
		pass(10 * time.Minute)
		are(t, n.Users, two, one)
		counts(t, n.Users, text, "")
		text = issue(t, n.Users, ann)
		counts(t, n.Users, text, "")
		if h := part(t, text, 0); h["alg"] != "RS256" {
			t.Errorf("header %v", h)
		}
	})
}

// What signs is shown nowhere, neither are access keys.
func TestKeysAreSecret(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := newFrailStore()
	k, err := identity.OpenKeys(t.Context(), s, &identity.KeysOptions{Logger: log}, primary)
	if err != nil {
		t.Fatal(err)
	}
	id := k.Current()[0].ID()
	log.Info("keys", "keys", k)
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%+v", k), fmt.Sprintf("%#v", k)} {
		if text != "keys "+id {
			t.Error(text)
		}
	}
	if err := k.Bind(t.Context(), secondary); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(&out, k.Current())
	value, _, err := s.Get(t.Context(), s.keys("key.")[0])
	if err != nil {
		t.Fatal(err)
	}
	private := value[len(value)-121:] // the number is 36 bytes into PKCS #8
	for _, secret := range []string{
		string(primary), string(secondary), string(private[36:68]), fmt.Sprintf("%x", private[36:68]),
		base64.StdEncoding.EncodeToString(private[36:66]), fmt.Sprint(private[36:68]),
	} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q is shown", secret)
		}
	}
	for _, want := range []string{"made a key", "another key signs", "removed a key", id} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log lacks %q: %s", want, &out)
		}
	}
	for _, key := range s.keys("") {
		if v, _, err := s.Get(t.Context(), key); err != nil || bytes.Contains(v, primary) || bytes.Contains(v, secondary) {
			t.Errorf("%s holds an access key, %v", key, err)
		}
	}
}

func TestKeysRefusals(t *testing.T) {
	for _, o := range []identity.KeysOptions{
		{Algorithm: "HS256"}, {Algorithm: "none"}, {Every: identity.MinEvery - 1}, {Every: identity.MaxEvery + 1}, {Every: -1},
	} {
		if _, err := identity.OpenKeys(t.Context(), identity.NewMemoryStore(), &o); err == nil {
			t.Errorf("%+v passes", o)
		}
	}
	many := slices.Repeat([][]byte{primary}, 17)
	if _, err := identity.OpenKeys(t.Context(), identity.NewMemoryStore(), nil, many...); err == nil {
		t.Error("17 access keys pass")
	}
	s := newFrailStore()
	k, err := identity.OpenKeys(t.Context(), s, nil, primary)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Bind(t.Context(), many...); err == nil || len(k.Current()) != 1 {
		t.Errorf("%v, %v", k, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Follow(ctx, newUsers(t, s, k.Current()...)); err != nil {
		t.Errorf("following ends with %v", err)
	}

	key := s.keys("key.")[0]
	value, revision, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, {9}, value[:40], value[:41], value[:len(value)-1], append([]byte{2}, value[1:]...)} {
		if revision, err = s.Put(t.Context(), key, bad, revision); err != nil {
			t.Fatal(err)
		}
		if _, err := identity.OpenKeys(t.Context(), s, nil, primary); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%x: %v", bad, err)
		}
	}
	s.Close()
	if _, err := identity.OpenKeys(t.Context(), s, nil, primary); !errors.Is(err, identity.ErrClosed) {
		t.Error(err)
	}
	if err := k.Follow(t.Context(), newUsers(t, s, derive(t, 1))); !errors.Is(err, identity.ErrClosed) {
		t.Error(err)
	}
}

// Whoever follows hears of a store that is closed.
func TestKeysOfClosedStore(t *testing.T) {
	s := identity.NewMemoryStore()
	k, err := identity.OpenKeys(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	u := newUsers(t, s, k.Current()...)
	done := make(chan error, 1)
	go func() { done <- k.Follow(t.Context(), u) }() // ends with the store
	s.Close()
	if err := <-done; !errors.Is(err, identity.ErrClosed) {
		t.Error(err)
	}
}

// Keys and users outlive the process in a file.
func TestKeysInFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	var ann engine.UserID
	var text string
	for life := range 2 {
		s, err := filestore.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		k, err := identity.OpenKeys(t.Context(), s, &identity.KeysOptions{Algorithm: identity.RS256}, primary)
		if err != nil {
			t.Fatal(err)
		}
		u := newUsers(t, s, k.Current()...)
		if life == 0 {
			ann = named(t, u, "ann")
			text = issue(t, u, ann)
		}
		counts(t, u, text, "")
		if again := named(t, u, "ann"); again != ann {
			t.Errorf("%s, then %s", ann, again)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
