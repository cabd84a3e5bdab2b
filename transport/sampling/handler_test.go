package sampling_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/transport/sampling"
)

// lines is a log that is read line by line.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take returns the lines since the last call.
func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return slices.Collect(strings.Lines(l.text.String()))
}

// newLog returns a sampled log without times and levels.
func newLog(o *sampling.Options) (*slog.Logger, *sampling.Handler, *lines) {
	out := &lines{}
	h := sampling.New(slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}), o)
	return slog.New(h), h, out
}

func TestRefusalsAreSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _, out := newLog(&sampling.Options{Interval: time.Minute, Whole: 2})
		log = log.With("component", "x")
		for i := range 100 {
			log.Info("refused", "rule", "token.missing", "remote", fmt.Sprintf("192.0.2.%d:1", i))
		}
		log.Info("refused", "rule", "token.missing", "remote", "198.51.100.1:1")
		log.Warn("refused", "rule", "token.signature", "remote", "192.0.2.1:1")
		got := out.take()
		want := []string{
			"level=INFO msg=refused component=x rule=token.missing remote=192.0.2.0:1\n",
			"level=INFO msg=refused component=x rule=token.missing remote=192.0.2.1:1\n",
			"level=INFO msg=refused component=x rule=token.missing remote=198.51.100.1:1\n",
			"level=WARN msg=refused component=x rule=token.signature remote=192.0.2.1:1\n",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := out.take(); !slices.Equal(got, []string{
			"level=INFO msg=\"refusals were left out of the log\" component=x refusal=refused rule=token.missing from=192.0.2.0/24 leftOut=98 logged=2 in=1m0s\n",
		}) {
			t.Errorf("at the end of the interval: %q", got)
		}
		log.Info("refused", "rule", "token.missing", "remote", "192.0.2.1:1")
		if got := out.take(); len(got) != 1 {
			t.Errorf("in the next interval: %q", got)
		}
		time.Sleep(time.Hour)
		if got := out.take(); len(got) != 0 {
			t.Errorf("of an interval in which nothing was left out: %q", got)
		}
	})
}

func TestOtherLinesPass(t *testing.T) {
	log, _, out := newLog(&sampling.Options{Whole: 1})
	for range 5 {
		log.Info("serving", "address", "127.0.0.1:80")
		log.WithGroup("settings").Info("read", "rule", "no refusal's")
		log.Debug("not enabled", "rule", "x")
	}
	if got := out.take(); len(got) != 10 {
		t.Errorf("%d lines", len(got))
	}
	for range 5 {
		log.Info("a rule alone", "rule", "x")
		log.Info("an address alone", "remote", "192.0.2.1:1")
		log.With("rule", "y", "remote", "192.0.2.1:1").Info("both before")
	}
	if got := out.take(); len(got) != 3 {
		t.Errorf("%d lines of refusals", len(got))
	}
}

// However many rules and addresses there are, a bounded number is told apart, and a bounded
// number of lines written.
func TestPairsAreBounded(t *testing.T) {
	log, h, out := newLog(&sampling.Options{Whole: 1, Pairs: 10})
	for i := range 1000 {
		log.Info("refused", "rule", "token.missing", "remote", fmt.Sprintf("192.0.%d.1:1", i%256))
		log.Info("refused", "rule", "token.missing", "remote", fmt.Sprintf("[2001:db8:%x::1]:1", i))
	}
	if got := out.take(); len(got) != 11 { // ten, and one of all others
		t.Errorf("%d lines", len(got))
	}
	h.Flush()
	got := out.take()
	left := 0
	for _, line := range got {
		var n int
		_, rest, _ := strings.Cut(line, "leftOut=")
		fmt.Sscan(rest, &n)
		left += n
	}
	if len(got) > 11 || left != 2000-11 || !strings.Contains(strings.Join(got, ""), `from="other addresses"`) {
		t.Errorf("%d lines say that %d are left out: %q", len(got), left, got)
	}
	for i := range 1000 { // a program's rules are few, but these are not
		log.Info("refused", "rule", fmt.Sprint(i), "remote", "192.0.2.1:1")
	}
	h.Flush()
	if got := out.take(); len(got) > 42 {
		t.Errorf("%d lines", len(got))
	}
}

func TestFlushSaysWhatWasLeftOut(t *testing.T) {
	log, h, out := newLog(&sampling.Options{Whole: 1})
	log.Info("refused", "rule", "x")
	log.Error("refused", "rule", "x")
	out.take()
	h.Flush()
	if got := out.take(); len(got) != 1 || !strings.Contains(got[0], "level=ERROR") || !strings.Contains(got[0], `from="unknown addresses" leftOut=1`) {
		t.Errorf("%q", got)
	}
	h.Flush()
	if got := out.take(); len(got) != 0 {
		t.Errorf("again: %q", got)
	}
}

func TestSamplingIsSafeForConcurrentUse(t *testing.T) {
	log, h, out := newLog(&sampling.Options{Interval: time.Millisecond, Whole: 1, Pairs: 2})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 500 {
				log.With("n", i).Info("refused", "rule", fmt.Sprint(j%3), "remote", fmt.Sprintf("192.0.%d.1:1", j%5))
			}
		})
	}
	all.Wait()
	h.Flush()
	logged, left := 0, 0
	for _, line := range out.take() {
		if _, rest, ok := strings.Cut(line, "leftOut="); ok {
			n := 0
			fmt.Sscan(rest, &n)
			left += n
		} else {
			logged++
		}
	}
	if logged+left != 2000 {
		t.Errorf("%d are logged and %d left out, of 2000", logged, left)
	}
}

// A failure to write is returned.
func TestErrorsOfTheLog(t *testing.T) {
	h := sampling.New(slog.NewTextHandler(failing{}, nil), nil)
	if err := h.Handle(context.Background(), slog.NewRecord(time.Now(), slog.LevelInfo, "x", 0)); !errors.Is(err, errFull) {
		t.Error(err)
	}
}

var errFull = errors.New("full")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFull }

func TestPrefixes(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.77:80":         "192.0.2.0/24",
		"192.0.2.77":            "192.0.2.0/24",
		"[::ffff:192.0.2.77]:1": "192.0.2.0/24",
		"[2001:db8:1:2ff::1]:1": "2001:db8:1:200::/56",
		"2001:db8:1:2ff::1":     "2001:db8:1:200::/56",
		"[fe80::1%eth0]:1":      "fe80::/56",
	} {
		if got := sampling.PrefixOf(remote); got != netip.MustParsePrefix(want) {
			t.Errorf("%s: %s; want %s", remote, got, want)
		}
	}
	for _, remote := range []string{"", "pipe", "@", "localhost:80"} {
		if got := sampling.PrefixOf(remote); got.IsValid() {
			t.Errorf("%s: %s", remote, got)
		}
	}
}
