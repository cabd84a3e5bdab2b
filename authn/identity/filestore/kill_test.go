package filestore_test

import (
	"bufio"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
)

var (
	kills = flag.Int("kills", 50, "how often the process that has the file is killed; 1000 is the full size")
	seed  = flag.Uint64("seed", 0, "decides when it is killed; by default the clock does")
)

// most is how many lines a victim writes at most before it is killed.
const most = 300

// Whatever the moment at which the process that has the file is killed, what it has
// acknowledged holds: users are there, names lead to them, deleted ones are gone for
// good, revoked tokens never count again, and all others do, those that were issued
// afterwards included. What was under way has happened entirely or not at all. One file
// goes through all kills.
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
