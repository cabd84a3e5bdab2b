package filestore_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/identity/filestore"
	"github.com/fanfare/fanfare/engine"
)

var (
	kills = flag.Int("kills", 50, "how often the process that has the file is killed; 1000 is the full size")
	seed  = flag.Uint64("seed", 0, "decides when it is killed; by default the clock does")
)

const (
	// victimVariable, in the environment, makes the test binary the process that is
	// killed: it names the file.
	victimVariable = "FANFARE_FILESTORE_VICTIM"
	workers        = 16
	watchers       = 2
	// most is how many lines a victim may write before it is killed.
	most = 300
)

func TestMain(m *testing.M) {
	if path := os.Getenv(victimVariable); path != "" {
		if err := victim(path); err != nil {
			fmt.Fprintln(os.Stderr, "victim:", err)
			os.Exit(1)
		}
		return
	}
	m.Run()
}

// usersOf returns the users of a store that keeps their signing keys, too, and the key
// that signs.
func usersOf(ctx context.Context, s identity.Store) (*identity.Users, identity.Key, error) {
	keys, err := identity.OpenKeys(ctx, s, nil)
	if err != nil {
		return nil, identity.Key{}, err
	}
	users, err := identity.New(ctx, s, nil, keys.Current()...)
	return users, keys.Current()[0], err
}

// victim works on the users of a file until it is killed. It reads a seed and the users
// that there are already, a line each, and writes what it is about to do and then what
// has been acknowledged:
//
//	opening  open
//	c W      C W ID      create
//	n W NAME N W ID      create by a name
//	i W ID   I W TOKEN   issue
//	r W ID   R W         revoke
//	d W ID   D W         delete
//	X W                  there is no such user: another worker has deleted it
func victim(path string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	say := func(words ...any) { fmt.Println(words...) } // one write(2): lines never mix
	say("opening")
	s, err := filestore.Open(path)
	if err != nil {
		return err
	}
	users, _, err := usersOf(ctx, s)
	if err != nil {
		return err
	}
	say("open")
	lines := bufio.NewScanner(os.Stdin)
	var given []engine.UserID
	var drawn uint64
	for lines.Scan() && lines.Text() != "" {
		if drawn == 0 {
			drawn, _ = strconv.ParseUint(lines.Text(), 10, 64) // 0 is a seed, too
			continue
		}
		given = append(given, engine.UserID(lines.Text()))
	}
	go func() { // the parent is gone
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	for range watchers {
		ended, err := users.Ended(ctx)
		if err != nil {
			return err
		}
		go func() { // ends with the process
			for range ended {
			}
		}()
	}
	failed := make(chan error)
	for w := range workers {
		r := rand.New(rand.NewPCG(drawn, uint64(w)))
		go func() { failed <- work(ctx, users, w, r, drawn, given, say) }() // ends with the process
	}
	return <-failed
}

// work is what one worker does. The first few of the given users are everybody's, the
// others are shared out. It ends when something fails for a reason other than that
// another worker has deleted the user.
func work(ctx context.Context, users *identity.Users, w int, r *rand.Rand, run uint64, given []engine.UserID, say func(...any)) error {
	const shared = 4
	everybodys := slices.Clone(given[:min(shared, len(given))])
	var own []engine.UserID
	for i, id := range given[len(everybodys):] {
		if i%workers == w {
			own = append(own, id)
		}
	}
	for n := 0; ; n++ {
		list, deletions := &own, 10
		if len(everybodys) > 0 && r.IntN(4) == 0 {
			list, deletions = &everybodys, 1
		}
		at := 0
		var id engine.UserID
		if len(*list) > 0 {
			at = r.IntN(len(*list))
			id = (*list)[at]
		}
		var acknowledged string
		var err error
		gone := false
		switch chance := r.IntN(100); {
		case chance < 10:
			name := fmt.Sprintf("name-%d-%d", run, n/10) // asked for by several workers at a time
			if list == &own {
				name = fmt.Sprintf("name-%d-%d-%d", run, w, n)
			}
			say("n", w, name)
			id, err = users.Named(ctx, name)
			acknowledged = fmt.Sprint("N ", w, " ", id)
			own = append(own, id)
		case id == "" || chance < 35:
			say("c", w)
			id, err = users.Create(ctx)
			acknowledged = fmt.Sprint("C ", w, " ", id)
			own = append(own, id)
		case chance < 65:
			say("i", w, id)
			var token string
			token, _, err = users.Issue(ctx, id, []string{identity.ScopeChat}, time.Hour)
			acknowledged = fmt.Sprint("I ", w, " ", token)
		case chance < 100-deletions:
			say("r", w, id)
			err = users.Revoke(ctx, id)
			acknowledged = fmt.Sprint("R ", w)
		default:
			say("d", w, id)
			err = users.Delete(ctx, id)
			acknowledged = fmt.Sprint("D ", w)
			gone = true
		}
		switch {
		case err == nil:
			say(acknowledged)
		case ruleOf(err) == "user.unknown":
			say("X", w)
			gone = true
		default:
			return err
		}
		if gone {
			*list = slices.Delete(*list, at, at+1)
		}
	}
}

func ruleOf(err error) string {
	var e *engine.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Rule
	}
	return err.Error()
}

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

// Whatever the moment at which the process that has the file is killed, what it has
// acknowledged holds: users are there, names lead to them, deleted ones are not and never again, revoked
// tokens never count again, and all others do, those that were issued afterwards
// included. What was under way has happened entirely or not at all. One file goes
// through all kills.
//
// A process that is killed loses nothing of what the system has taken from it. So this
// shows the order in which the store writes and acknowledges, and that what is half
// written is no harm. It does not show what a machine that loses its power keeps:
// that rests on the disk's word for what was synchronised, and TestSynchronised shows
// that nothing is acknowledged before.
func TestKill(t *testing.T) {
	rounds := *kills
	if testing.Short() {
		rounds = min(rounds, 10)
	}
	drawn := *seed
	if drawn == 0 {
		drawn = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", drawn)
	r := rand.New(rand.NewPCG(drawn, 0))
	l := &ledger{
		users: map[engine.UserID]*user{}, names: map[string]engine.UserID{},
		acknowledged: map[string]int{}, underWay: map[string]int{}, happened: map[string]int{}, verified: map[string]int{},
	}
	path := file(t)
	began := time.Now()
	for n := range rounds {
		at := r.IntN(most)
		if n > 0 && r.IntN(10) == 0 {
			at = -1
		}
		l.run(t, path, r, at)
		l.verifyAll(t, path, func(u *user) bool { return u.touched || r.IntN(len(l.ids)) < 20 })
		if t.Failed() {
			t.Fatalf("after kill %d", n+1)
		}
	}
	took := time.Since(began)
	verified := l.verified
	l.verified = map[string]int{}
	l.verifyAll(t, path, func(*user) bool { return true })
	t.Logf("%d kills took %v", rounds, took.Round(time.Millisecond))
	t.Logf("acknowledged: %v", l.acknowledged)
	t.Logf("under way when killed: %v; of which happened: %v", l.underWay, l.happened)
	t.Logf("verified after the kills: %v; and in the end: %v", verified, l.verified)
	for _, kind := range kinds {
		if l.acknowledged[kind] < 3*rounds {
			t.Errorf("only %d %s were acknowledged: that shows little", l.acknowledged[kind], kind)
		}
	}
	if changes := l.underWay[kinds["c"]] + l.underWay[kinds["n"]] + l.underWay[kinds["r"]] + l.underWay[kinds["d"]]; changes < rounds {
		t.Errorf("only %d changes were under way when their process was killed", changes)
	}
}

// A process that is killed while it makes the file is no harm either: the next one has
// a store, and nothing lies around. The moments are what the folder shows.
func TestKillWhileMaking(t *testing.T) {
	rounds := max(*kills/5, 5)
	if testing.Short() {
		rounds = 5
	}
	began := time.Now()
	early := 0
	for n := range rounds {
		path := file(t)
		size := func(name string) int64 {
			if info, err := os.Stat(name); err == nil {
				return info.Size()
			}
			return -1
		}
		moments := []func() bool{
			func() bool { return true },
			func() bool { return size(path+".new") >= 0 },
			func() bool { return size(path+".new") > 0 },
			func() bool { return size(path+".new") > 4*int64(os.Getpagesize()) },
			func() bool { return size(path) > 0 },
		}
		reached := moments[n%len(moments)]
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), victimVariable+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		text := bufio.NewReader(out)
		if line, err := text.ReadString('\n'); err != nil || line != "opening\n" {
			t.Fatalf("%q, %v", line, err)
		}
		for !reached() && size(path) < 0 {
			runtime.Gosched()
		}
		cmd.Process.Kill()
		if line, _ := text.ReadString('\n'); line == "" {
			early++
		}
		cmd.Wait() // the kill's status

		s := open(t, path)
		users, _, err := usersOf(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := users.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
			t.Errorf("%v, %v", entries, err)
		}
	}
	t.Logf("%d kills took %v, of which %d came before the store was open", rounds, time.Since(began).Round(time.Millisecond), early)
	if early < rounds/5 {
		t.Errorf("only %d of %d kills came before the store was open", early, rounds)
	}
}
