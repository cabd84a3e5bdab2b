package filestore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/identity/filestore"
	"github.com/fanfare/fanfare/engine"
)

const (
	// victimVariable, in the environment, makes the test binary the process that is
	// killed: it names the file.
	victimVariable = "FANFARE_FILESTORE_VICTIM"
	workers        = 16
	watchers       = 2
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
