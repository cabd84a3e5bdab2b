package websocket

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestDeadlineContext compares each moment of a context's life with that of the
// standard library's, with and without somebody who waits.
func TestDeadlineContext(t *testing.T) {
	type key struct{}
	for _, waits := range []bool{false, true} {
		for name, end := range map[string]struct {
			do   func(cancelParent, stop func())
			want error
		}{
			"not yet":   {func(func(), func()) {}, nil},
			"deadline":  {func(func(), func()) { time.Sleep(time.Second) }, context.DeadlineExceeded},
			"stopped":   {func(_, stop func()) { stop() }, context.Canceled},
			"by parent": {func(cancel, _ func()) { cancel() }, context.Canceled},
		} {
			synctest.Test(t, func(t *testing.T) {
				parent, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, 7))
				defer cancel()
				c := withTimeout(parent, time.Second)
				defer c.stop()
				if waits {
					child, stop := context.WithCancel(c)
					defer stop()
					defer func() {
						synctest.Wait()
						if !errors.Is(child.Err(), end.want) {
							t.Errorf("%s: a child's error is %v, want %v", name, child.Err(), end.want)
						}
					}()
				}
				end.do(cancel, c.stop)
				synctest.Wait()
				if err := c.Err(); err != end.want {
					t.Errorf("%s, waits %v: Err() = %v, want %v", name, waits, err, end.want)
				}
				select {
				case <-c.Done():
					if end.want == nil {
						t.Errorf("%s: done", name)
					}
				default:
					if end.want != nil {
						t.Errorf("%s: not done", name)
					}
				}
				if at, ok := c.Deadline(); !ok || time.Until(at) > time.Second {
					t.Errorf("%s: Deadline() = %v, %v", name, at, ok)
				}
				if c.Value(key{}) != 7 {
					t.Errorf("%s: the parent's value is not found", name)
				}
			})
		}
	}
}
