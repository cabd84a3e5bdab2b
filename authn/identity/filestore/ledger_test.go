package filestore_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/identity/filestore"
	"github.com/fanfare/fanfare/engine"
)

// ledger is what must be in the file, by what victims have acknowledged.
type ledger struct {
	users map[engine.UserID]*user
	names map[string]engine.UserID
	ids   []engine.UserID // of all of them, in the order of their acknowledgements
	// strangers are users whose making was under way at a kill: nobody knows their ids.
	strangers int
	making    int // of the last victim
	resource  string
	key       string // the id of the key that signs

	acknowledged, underWay, happened map[string]int // by kind
	verified                         map[string]int
}

// user is one whose making was acknowledged.
type user struct {
	name     string
	tokens   []*issued
	deleting bool // a deletion has begun
	deleted  bool // and was acknowledged, or was seen

	// Of the present victim.
	touched  bool
	revoking int // revocations that have begun
	revoked  int // the line of the last that was acknowledged
}

type issued struct {
	token string
	state state
	line  int // of the present victim, at which it was acknowledged
}

type state int

const (
	unsure   state = iota // a revocation was under way when it was issued
	counts                // it was issued after the last revocation
	revoking              // and another has begun
	ended                 // a revocation that began after it was issued is acknowledged
)

// begun is what a worker is about to do.
type begun struct {
	kind string
	name string
	user *user
	line int
}

var kinds = map[string]string{"c": "creations", "n": "names", "i": "tokens", "r": "revocations", "d": "deletions"}

// read takes a line of a victim into account.
func (l *ledger) read(n int, line string, doing map[string]begun) error {
	words := append(strings.Fields(line), "", "")
	what, w, arg := words[0], words[1], words[2]
	if kinds[what] != "" {
		b := begun{what, arg, l.users[engine.UserID(arg)], n}
		if b.user == nil && what != "c" && what != "n" {
			return errors.New("nobody made this user")
		}
		if b.user != nil {
			b.user.touched = true
		}
		switch what {
		case "r":
			b.user.revoking++
			for _, t := range b.user.tokens {
				if t.state == counts {
					t.state = revoking
				}
			}
		case "d":
			b.user.deleting = true
		}
		doing[w] = b
		return nil
	}
	b, ok := doing[w]
	if !ok || what != "X" && what != strings.ToUpper(b.kind) {
		return fmt.Errorf("the worker was about to do %q", b.kind)
	}
	delete(doing, w)
	if what != "X" {
		l.acknowledged[kinds[b.kind]]++
	}
	switch what {
	case "C", "N":
		id := engine.UserID(arg)
		if what == "N" {
			was, known := l.names[b.name]
			if u := l.users[id]; known && was == id || u != nil && u.deleting {
				return nil // what another worker got, too, even if it is gone by now
			}
			if known && !l.users[was].deleting {
				return fmt.Errorf("the name was given to %s", was)
			}
			l.names[b.name] = id
		}
		if l.users[id] != nil {
			return errors.New("this user is made twice")
		}
		l.users[id] = &user{name: b.name, touched: true}
		l.ids = append(l.ids, id)
	case "I":
		t := &issued{token: arg, line: n}
		if b.user.revoking == 0 && b.user.revoked < b.line {
			t.state = counts
		}
		b.user.tokens = append(b.user.tokens, t)
	case "R":
		b.user.revoking--
		b.user.revoked = n
		for _, t := range b.user.tokens {
			if t.line < b.line {
				t.state = ended
			}
		}
	case "D":
		b.user.deleted = true
	case "X":
		if !b.user.deleting {
			return errors.New("nobody deleted this user")
		}
		b.user.deleted = true
	}
	return nil
}

// verify compares a user with the store, and decides what was open.
func (l *ledger) verify(t *testing.T, users *identity.Users, id engine.UserID, u *user) {
	probe, _, err := users.Issue(t.Context(), id, []string{identity.ScopeChat}, time.Hour)
	switch rule := ruleOf(err); {
	case rule == "user.unknown" && u.deleted:
		l.verified["deleted users"]++
	case rule == "user.unknown" && u.deleting:
		l.happened[kinds["d"]]++
		u.deleted = true
	case rule != "" || u.deleted:
		t.Errorf("%s, deleted: %t: a new token is answered with %q", id, u.deleted, rule)
	default:
		l.verified["users"]++
		if _, err := users.Verify(t.Context(), probe); err != nil {
			t.Errorf("%s: a new token: %v", id, err)
		}
		if u.name == "" || l.names[u.name] != id {
			break
		}
		l.verified["names"]++
		if named, err := users.Named(t.Context(), u.name); err != nil || named != id {
			t.Errorf("the name of %s leads to %s, %v", id, named, err)
		}
	}
	together := "" // what becomes of tokens that a revocation under way would end
	for i, token := range u.tokens {
		_, err := users.Verify(t.Context(), token.token)
		rule := ruleOf(err)
		if token.state == revoking && together == "" {
			together = "as " + rule
			if rule == "user.revoked" {
				l.happened[kinds["r"]]++
			}
		}
		switch {
		case u.deleted && rule == "user.deleted":
			l.verified["tokens of deleted users"]++
		case u.deleted || rule != "" && rule != "user.revoked",
			rule == "" && token.state == ended,
			rule != "" && token.state == counts,
			token.state == revoking && together != "as "+rule:
			t.Errorf("%s, deleted: %t: token %d of %d, in state %d, is answered with %q", id, u.deleted, i, len(u.tokens), token.state, rule)
		case rule == "":
			token.state = counts
			l.verified["tokens that count"]++
		default:
			token.state = ended
			l.verified["revoked tokens"]++
		}
		token.line = 0
	}
	u.deleting, u.touched, u.revoking, u.revoked = false, false, 0, 0
}

// run starts a victim on a file, kills it so many lines after it has opened the file,
// or at -1 before, and takes into account what it wrote.
func (l *ledger) run(t *testing.T, path string, r *rand.Rand, at int) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimVariable+"="+path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, r.Uint64())
	for range min(64, len(l.ids)) {
		if id := l.ids[r.IntN(len(l.ids))]; !l.users[id].deleted {
			fmt.Fprintln(in, id)
		}
	}
	fmt.Fprintln(in)

	doing := map[string]begun{}
	text := bufio.NewReader(out)
	for n := -1; ; n++ {
		line, err := text.ReadString('\n')
		if err != nil {
			break // also half a line: that was not written
		}
		switch {
		case n > 0:
			if err := l.read(n, line, doing); err != nil {
				t.Errorf("%.200q: %v", line, err)
			}
		case line == "opening\n" || line == "open\n":
		default:
			t.Errorf("the victim said %.200q", line)
		}
		if n == at {
			cmd.Process.Kill()
		}
	}
	cmd.Wait() // the kill's status
	in.Close()
	if stderr.Len() > 0 {
		t.Errorf("the victim said: %s", &stderr)
	}
	l.making = 0
	for _, b := range doing {
		l.underWay[kinds[b.kind]]++
		if b.kind == "c" || b.kind == "n" {
			l.making++
		}
	}
}

// count returns how many users a file has that nobody has open, and checks it as a
// bbolt database.
func count(t *testing.T, path string) (n int) {
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		prefix := []byte("user.")
		c := tx.Bucket([]byte("values")).Cursor()
		for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// verifyAll opens a file and verifies the users that a wish is for.
func (l *ledger) verifyAll(t *testing.T, path string, wish func(*user) bool) {
	there := count(t, path)
	s, err := filestore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	users, key, err := usersOf(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if l.resource == "" {
		l.resource, l.key = users.Resource(), key.ID()
	}
	if users.Resource() != l.resource || key.ID() != l.key {
		t.Fatalf("the resource was %s and is %s; the key was %s and is %s", l.resource, users.Resource(), l.key, key.ID())
	}
	for _, id := range l.ids {
		u := l.users[id]
		if wish(u) {
			l.verify(t, users, id, u)
		}
		if !u.deleted {
			there--
		}
	}
	if there < l.strangers || there > l.strangers+l.making {
		t.Errorf("beside the known users there are %d in the file; %d were there before, and %d were being made", there, l.strangers, l.making)
	}
	l.happened["creations, by a name or without"] += there - l.strangers
	l.strangers, l.making = there, 0
}
