package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/identity/filestore"
	"github.com/fanfare/fanfare/engine"
)

// Settings of a child whose users are measured, in its environment.
const (
	storeVariable  = "FANFARE_BENCH_STORE"  // file or memory
	folderVariable = "FANFARE_BENCH_FOLDER" // where it keeps the users and their ids
)

// userCallers is how many callers create, issue and delete at the same time: as many
// as share one commit of the file at most.
const userCallers = 1024

// runUsers is the users that are measured. Their ids go through a file, so that
// memory has the store's own alone.
func runUsers(in io.Reader, out io.Writer) error {
	h := &household{folder: os.Getenv(folderVariable), next: map[string]*bufio.Scanner{}}
	// The callers' goroutines stay with the process: they are to be there before it is
	// weighed for the first time.
	var together sync.WaitGroup
	together.Add(userCallers)
	err := h.parallel(userCallers, func(context.Context) error {
		together.Done()
		together.Wait()
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(answer(in, out, ready{}, nil, h.do), h.close())
}

type household struct {
	folder string
	users  *identity.Users
	shut   func() error              // ends the store; nil if there is nothing to end
	next   map[string]*bufio.Scanner // of the ids, for each command that goes through them
}

func (h *household) close() error {
	if h.shut == nil {
		return nil
	}
	return h.shut()
}

func (h *household) do(c command) error {
	switch c.Do {
	case "open":
		return h.open()
	case "create":
		return h.create(c.Count)
	case "issue":
		return h.each(c, func(ctx context.Context, id engine.UserID) error {
			_, _, err := h.users.Issue(ctx, id, []string{identity.ScopeChat}, identity.DefaultLifetime)
			return err
		})
	case "delete":
		return h.each(c, h.users.Delete)
	default:
		return errors.ErrUnsupported
	}
}

func (h *household) open() error {
	var store identity.Store
	switch kind := os.Getenv(storeVariable); kind {
	case "file":
		s, err := filestore.Open(filepath.Join(h.folder, "users.db"))
		if err != nil {
			return err
		}
		store, h.shut = s, s.Close
	case "memory":
		store = identity.NewMemoryStore()
	default:
		return fmt.Errorf("%s=%s: no such store", storeVariable, kind)
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	key, err := identity.DeriveKey(secret)
	if err != nil {
		return err
	}
	h.users, err = identity.New(context.Background(), store, nil, key)
	return err
}

func (h *household) ids() string { return filepath.Join(h.folder, "ids") }

// create makes users, and adds their ids to the file of them.
func (h *household) create(n int) error {
	f, err := os.OpenFile(h.ids(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	var mu sync.Mutex // guards w
	err = h.parallel(n, func(ctx context.Context) error {
		id, err := h.users.Create(ctx)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		_, err = fmt.Fprintln(w, id)
		return err
	})
	return errors.Join(err, w.Flush(), f.Close())
}

// each calls do with the next ids of the file, from where the last such command was.
func (h *household) each(c command, do func(context.Context, engine.UserID) error) error {
	ids := h.next[c.Do]
	if ids == nil {
		f, err := os.Open(h.ids())
		if err != nil {
			return err
		}
		ids = bufio.NewScanner(f)
		h.next[c.Do] = ids
	}
	var mu sync.Mutex // guards ids
	return h.parallel(c.Count, func(ctx context.Context) error {
		mu.Lock()
		more, id := ids.Scan(), engine.UserID(ids.Text())
		mu.Unlock()
		if !more {
			return errors.Join(errors.New("there are no more ids"), ids.Err())
		}
		return do(ctx, id)
	})
}

// parallel calls do n times, from userCallers callers, until it fails.
func (h *household) parallel(n int, do func(context.Context) error) error {
	var begun atomic.Int64
	errs := make([]error, userCallers)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for errs[i] == nil && begun.Add(1) <= int64(n) {
				errs[i] = do(context.Background())
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// users measures what users and their tokens cost the two stores.
func (b *bench) users(n int) error {
	for round := range b.rounds {
		for _, kind := range []string{"memory", "file"} {
			b.say("users/store=%s/users=%d, round %d of %d", kind, n, round+1, b.rounds)
			if err := b.usersOnce(kind, n); err != nil {
				return fmt.Errorf("users in the %s: %w", kind, err)
			}
		}
	}
	return nil
}

func (b *bench) usersOnce(kind string, n int) error {
	folder, err := os.MkdirTemp("", "fanfare-users-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	r := &usersRun{bench: b, kind: kind, n: n, folder: folder}
	defer func() { r.child.stop() }()
	if err := r.open(); err != nil {
		return err
	}
	if err := r.step("create", "create", ""); err != nil {
		return err
	}
	if kind == "file" { // what it costs from now on is that of users who were there before
		if err := r.child.stop(); err != nil {
			return err
		}
		if err := r.open(); err != nil {
			return err
		}
	}
	before := r.now
	if err := r.step("issue", "issue", "token"); err != nil {
		return err
	}
	if r.now.file != before.file {
		return fmt.Errorf("the tokens changed the file's size from %d to %d bytes", before.file, r.now.file)
	}
	b.report.goal(goal{id: "U1", what: fmt.Sprintf("store=%s: heap that each of %d tokens adds", kind, n), unit: "B", most: 1},
		max(0, float64(r.now.heap-before.heap)/float64(n)))
	if err := r.step("delete", "delete", ""); err != nil {
		return err
	}
	return r.step("again", "create", "")
}

// usersRun is the measurement of one store.
type usersRun struct {
	*bench
	kind   string
	n      int
	folder string
	child  *child

	empty, now weight
}

// weight is what a child and its file take.
type weight struct{ heap, rss, anonymous, file int64 }

func (r *usersRun) weigh() (w weight, cpu time.Duration, err error) {
	m, err := r.child.tell(command{Do: "gc"})
	if err != nil {
		return w, 0, err
	}
	w.heap = int64(m.Heap)
	if w.rss, err = r.child.rss(); err != nil {
		return w, 0, err
	}
	if w.anonymous, err = r.child.memory("Anonymous"); err != nil {
		return w, 0, err
	}
	if info, err := os.Stat(filepath.Join(r.folder, "users.db")); err == nil {
		w.file = info.Size()
	}
	return w, m.CPU, nil
}

// open starts a child and has it open the store, which it measures if users are there.
func (r *usersRun) open() (err error) {
	if r.child, err = spawn("users", storeVariable+"="+r.kind, folderVariable+"="+r.folder); err != nil {
		return err
	}
	if r.empty, _, err = r.weigh(); err != nil {
		return err
	}
	began := time.Now()
	if _, err := r.child.tell(command{Do: "open"}); err != nil {
		return err
	}
	took := time.Since(began)
	first := r.now.file == 0
	if r.now, _, err = r.weigh(); err != nil || first {
		return err
	}
	r.report.add(row{name: r.name("open"), n: 1, nsPerOp: float64(took.Nanoseconds()), metrics: r.metrics()})
	return nil
}

func (r *usersRun) name(step string) string {
	return fmt.Sprintf("Users/store=%s/users=%d/step=%s", r.kind, r.n, step)
}

// metrics are what all users together take, for each.
func (r *usersRun) metrics() []metric {
	n := float64(r.n)
	m := []metric{
		{"heap-B/user", float64(r.now.heap-r.empty.heap) / n},
		{"anon-B/user", float64(r.now.anonymous-r.empty.anonymous) / n},
		{"RSS-B/user", float64(r.now.rss-r.empty.rss) / n},
	}
	if r.kind == "file" {
		m = append(m, metric{"file-B/user", float64(r.now.file) / n}, metric{"file-B", float64(r.now.file)})
	}
	return m
}

// step has the child do something n times, and reports what that took and came to.
// Of what adds to users, it reports what was added for each.
func (r *usersRun) step(name, do, adds string) error {
	before, cpu, err := r.weigh()
	if err != nil {
		return err
	}
	began := time.Now()
	const parts = 10
	for part := range parts {
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		count := r.n*(part+1)/parts - r.n*part/parts
		if _, err := r.child.tell(command{Do: do, Count: count}); err != nil {
			return err
		}
		r.say("%s: %d of %d after %v", name, r.n*(part+1)/parts, r.n, time.Since(began).Round(time.Millisecond))
	}
	took := time.Since(began)
	after, spent, err := r.weigh()
	if err != nil {
		return err
	}
	r.now = after
	n := float64(r.n)
	m := []metric{{"per-s", n / took.Seconds()}, {"cpu-s/M", (spent - cpu).Seconds() / n * 1e6}}
	if adds == "" {
		m = append(m, r.metrics()...)
	} else {
		m = append(m,
			metric{"added-heap-B/" + adds, float64(after.heap-before.heap) / n},
			metric{"added-anon-B/" + adds, float64(after.anonymous-before.anonymous) / n},
			metric{"added-file-B", float64(after.file - before.file)})
	}
	r.report.add(row{name: r.name(name), n: int64(r.n), nsPerOp: float64(took.Nanoseconds()) / n, metrics: m})
	return nil
}
