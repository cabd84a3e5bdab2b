package kept_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/authn/internal/kept"
)

// source counts fetches, which take a while, and answers by its fields.
type source struct {
	mu   sync.Mutex
	n    int
	err  error
	took time.Duration
	due  time.Duration // from the fetch on; Stale is twice that, End three times
}

func (s *source) fetch(ctx context.Context, key string) (kept.Value[string], error) {
	s.mu.Lock()
	s.n++
	n, err, took, due := s.n, s.err, s.took, s.due
	s.mu.Unlock()
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return kept.Value[string]{}, ctx.Err()
	}
	now := time.Now()
	return kept.Value[string]{Value: fmt.Sprint(key, n), Due: now.Add(due), Stale: now.Add(2 * due), End: now.Add(3 * due)}, err
}

func (s *source) now(change func(*source)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

var bounds = kept.Options{Max: 2, Timeout: 30 * time.Second, Patience: 10 * time.Second}

// want checks what Get returns.
func want(t *testing.T, c *kept.Cache[string], key, value string, err error) {
	t.Helper()
	got, gotErr := c.Get(t.Context(), key)
	if got != value || !errors.Is(gotErr, err) {
		t.Errorf("got %q, %v; want %q, %v", got, gotErr, value, err)
	}
}

// The life of a value: fetched once for all who ask, used until it is due,
// replaced beside its use, waited for once it is stale, and kept in use through
// an outage until its end.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outage := errors.New("outage")
		var failed atomic.Int64
		s := &source{took: time.Second, due: time.Hour}
		o := bounds
		o.Failed = func(string, error) { failed.Add(1) }
		c := kept.New(s.fetch, o)
		defer c.Close()

		began := time.Now()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { want(t, c, "a", "a1", nil) })
		}
		wg.Wait()
		if took := time.Since(began); took != time.Second {
			t.Errorf("the first value took %s", took)
		}
		time.Sleep(59 * time.Minute)
		want(t, c, "a", "a1", nil)
		synctest.Wait()

		time.Sleep(time.Minute + time.Second) // due
		began = time.Now()
		want(t, c, "a", "a1", nil)
		if took := time.Since(began); took != 0 {
			t.Errorf("a value that is due was waited for: %s", took)
		}
		time.Sleep(2 * time.Second)
		want(t, c, "a", "a2", nil)

		time.Sleep(2 * time.Hour) // stale
		want(t, c, "a", "a3", nil)

		s.now(func(s *source) { s.err = outage })
		time.Sleep(2 * time.Hour)
		want(t, c, "a", "a3", nil) // waited for and not got
		synctest.Wait()
		if n := failed.Load(); n != 1 {
			t.Errorf("told of %d failures", n)
		}
		time.Sleep(time.Hour) // its end
		want(t, c, "a", "", outage)
		if got := c.Stats(); got.Kept != 1 || got.Failures != 2 || got.Fetches != 5 {
			t.Errorf("%+v", got)
		}
	})
}

// After a failure the pauses grow; meanwhile the error is returned at once.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outage := errors.New("outage")
		s := &source{err: outage, due: time.Hour}
		c := kept.New(s.fetch, bounds)
		defer c.Close()
		began := time.Now()
		var at []time.Duration
		for fetches := int64(0); len(at) < 9; time.Sleep(100 * time.Millisecond) {
			want(t, c, "a", "", outage)
			if n := c.Stats().Fetches; n != fetches {
				fetches = n
				at = append(at, time.Since(began).Round(time.Second))
			}
		}
		if got := fmt.Sprint(at); got != "[0s 1s 3s 7s 15s 31s 1m3s 2m3s 3m3s]" {
			t.Errorf("fetched at %s", got)
		}
		s.now(func(s *source) { s.err = nil })
		time.Sleep(time.Minute)
		want(t, c, "a", "a10", nil)
	})
}

// A caller waits no longer than it may, and the fetch goes on without it.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{took: 20 * time.Second, due: time.Hour}
		c := kept.New(s.fetch, bounds)
		defer c.Close()
		want(t, c, "a", "", kept.ErrWaiting)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Get(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		want(t, c, "a", "a1", nil)

		s.now(func(s *source) { s.took = time.Hour }) // ended by Timeout
		want(t, c, "b", "", kept.ErrWaiting)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := c.Stats(); got.Failures != 1 {
			t.Errorf("%+v", got)
		}
		want(t, c, "b", "", context.DeadlineExceeded) // of the fetch
	})
}

// What is over when it comes is a failure, and what a fetch brings that is due
// at once does not make it spin.
func TestShortLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{due: -time.Second}
		c := kept.New(s.fetch, bounds)
		defer c.Close()
		if v, err := c.Get(t.Context(), "a"); err == nil {
			t.Errorf("got %q, which has expired", v)
		}
		now := time.Now()
		c2 := kept.New(func(context.Context, string) (kept.Value[string], error) {
			return kept.Value[string]{Value: "x", Due: now, Stale: now.Add(time.Hour), End: now.Add(time.Hour)}, nil
		}, bounds)
		defer c2.Close()
		for range 1000 {
			want(t, c2, "a", "x", nil)
			time.Sleep(time.Millisecond)
		}
		if n := c2.Stats().Fetches; n != 1 {
			t.Errorf("%d fetches in a second", n)
		}
	})
}

// No more keys are kept than there is room for: the one not used for longest
// goes, but never one that is being fetched.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{due: time.Hour}
		c := kept.New(s.fetch, bounds)
		defer c.Close()
		want(t, c, "a", "a1", nil)
		time.Sleep(time.Second)
		want(t, c, "b", "b2", nil)
		time.Sleep(time.Second)
		want(t, c, "a", "a1", nil)
		want(t, c, "c", "c3", nil)
		want(t, c, "a", "a1", nil)
		if got := c.Stats(); got.Kept != 2 || got.Fetches != 3 {
			t.Errorf("%+v", got)
		}
		s.now(func(s *source) { s.took = time.Minute })
		var wg sync.WaitGroup
		for _, key := range []string{"d", "e"} {
			wg.Go(func() { want(t, c, key, "", kept.ErrWaiting) })
		}
		synctest.Wait()
		want(t, c, "f", "", kept.ErrFull)
		wg.Wait()
	})
}

// A value in doubt is fetched again beside its use, and not too often; when all
// are in doubt, their next users wait.
func TestDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{due: time.Hour}
		c := kept.New(s.fetch, bounds)
		defer c.Close()
		c.Doubt("a", 0) // unknown
		want(t, c, "a", "a1", nil)
		for range 10 {
			c.Doubt("a", time.Minute)
			synctest.Wait()
		}
		want(t, c, "a", "a2", nil)
		time.Sleep(time.Minute)
		c.Doubt("a", time.Minute)
		synctest.Wait()
		want(t, c, "a", "a3", nil)

		c.DoubtAll()
		want(t, c, "a", "a4", nil)
		s.now(func(s *source) { s.err = errors.New("outage") })
		c.DoubtAll()
		want(t, c, "a", "a4", nil)

		// What was already being fetched is in doubt, too.
		s.now(func(s *source) { s.err, s.took = nil, time.Second })
		go c.Get(t.Context(), "b")
		synctest.Wait()
		c.DoubtAll()
		want(t, c, "b", "b6", nil)
		want(t, c, "b", "b7", nil)
	})
}

// Close ends everything.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{took: time.Hour}
		c := kept.New(s.fetch, bounds)
		var wg sync.WaitGroup
		wg.Go(func() { want(t, c, "a", "", context.Canceled) })
		synctest.Wait()
		c.Close()
		c.Close()
		wg.Wait()
		want(t, c, "a", "", kept.ErrClosed)
		c.Doubt("a", 0)
		c.DoubtAll()
	})
}
