package conformance_test

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fanfare/fanfare/transport/websocket/internal/conformance"
)

// found says which cases find a defect, and as what.
type found struct {
	defect defect
	// failed and nonStrict are patterns of ids, as in path.Match.
	failed, nonStrict string
	// also says of a case whether it fails, too.
	also func(c *conformance.Case) bool
}

func endsByServer(c *conformance.Case) bool { return !c.End.ByClient }
func compresses(c *conformance.Case) bool   { return c.Offer != "" }

func hasText(c *conformance.Case) bool {
	return c.Rounds != nil && c.Rounds.Data.Kind == conformance.Text ||
		slices.ContainsFunc(c.Want, func(e conformance.Event) bool { return e.Kind == conformance.Text })
}

const (
	// invalidUTF8 are the cases of text that is not UTF-8, but those of failing fast.
	invalidUTF8 = "6.3.* 6.6.1 6.6.3 6.6.4 6.6.6 6.6.8 6.6.10 6.8.* 6.10.* 6.11.5 6.1[2-9].* 6.2[01].* F.2.8"
	withPings   = "2.1 2.2 2.3 2.4 2.6 2.9 2.10 2.11 5.6 5.7 5.8 5.19 5.20 F.2.12"
)

var defects = []found{
	{defect: none},
	{defect: judgesUTF8Late, nonStrict: "6.4.*"},
	{defect: judgesNoUTF8, failed: invalidUTF8 + " 6.4.*"},
	{defect: takesUnmasked, failed: "F.1.1 F.1.2 F.1.3"},
	{defect: takesRSV, failed: "3.[1-6] F.1.8 F.2.9 F.2.10 F.2.11"}, // 3.7 has nothing that its answer could show
	{defect: takesReserved, failed: "4.*"},
	{defect: takesLongControl, failed: "2.5 7.3.6"},
	{defect: takesControlParts, failed: "5.1 F.1.7"}, // the rest of 5.2 is a continuation of nothing
	{defect: takesLongForms, failed: "F.1.4 F.1.5"},
	{defect: takesInterleaved, failed: "5.18"},
	{defect: takesStray, failed: "5.9 5.10 5.11 5.17"}, // the others go on with a message inside it
	{defect: takesRSVLater, failed: "F.2.9"},
	{defect: takesRSVControl, failed: "F.2.10"},
	{defect: takesBadCodes, failed: "7.9.*"},
	{defect: takesHalfCode, failed: "7.3.2"},
	{defect: takesBadReason, failed: "7.5.1"},
	{defect: answersNoPing, failed: withPings},
	{defect: answersPingEmpty, failed: "2.2 2.3 2.4 2.6 2.9 2.10 2.11 5.6 5.7 5.8 5.19 5.20 F.2.12"},
	{defect: answersPingLate, failed: "5.6 5.7 5.8 5.19 5.20 F.2.12"},
	{defect: answersNoClose, also: func(c *conformance.Case) bool { return c.End.Clean && !c.Informational }},
	{defect: answersAfterClose, failed: "7.1.[2345]"},
	{defect: keepsOpen, also: func(*conformance.Case) bool { return true }},
	{defect: failsWith1000, failed: "7.3.2 7.3.6 7.5.1 7.9.* F.1.7", also: endsByServer},
	{defect: failsWithoutWord}, // which RFC 6455 section 7.1.7 allows
	{defect: dropsAnswers, nonStrict: "3.2 3.3 3.4 4.1.3 4.1.4 4.1.5 4.2.3 4.2.4 4.2.5 5.15 F.1.2"},
	{defect: dropsEmpty, failed: "1.1.1 1.2.1 6.1.1 6.1.2 9.7.1 9.8.1 F.2.16"},
	{defect: dropsFirstFragment, failed: "5.[345678] 5.15 5.19 5.20 6.2.[234] 10.1.1 12.?.1[12] 13.?.1[12] F.2.12"},
	{defect: mixesKinds, also: hasText},
	{defect: reads16BitLengths, failed: "1.?.[78] 9.[12].1"},
	{defect: cutsAtLastBlock, failed: "F.2.5 F.2.6"},
	{defect: ignoresJunk, failed: "F.2.6"},
	{defect: forgetsClientWindow, failed: "F.2.13 F.2.14 F.2.17"},
	{defect: keepsPlainInWindow, failed: "F.2.14"},
	// Smaller messages have nothing that is farther back, or regular.
	{defect: usesLargeWindow, failed: "13.3.[34567] 13.[57].[4567] 13.[357].1[12] F.2.18"},
	{defect: usesContext, failed: "13.[2567].[34567] 13.[2567].1[12]"},
	{defect: namesTooMuch, also: func(c *conformance.Case) bool {
		return compresses(c) && !strings.Contains(c.Offer, "client_no_context_takeover")
	}},
	{defect: offersNoDeflate, also: compresses},
	{defect: namesTooLittle, failed: "13.[2567].*"},
}

// TestDefects runs all cases, with few rounds, against servers with one defect each. They
// fail those that are about it, and no others. With the race detector there are fewer of
// those others.
func TestDefects(t *testing.T) {
	all := slices.Concat(conformance.Autobahn(), conformance.Additional())
	// Large ones differ from small ones for a server with all of its parts right alone.
	small := slices.DeleteFunc(slices.Clone(all), isLarge)
	cases := make([][]conformance.Case, len(defects))
	got := make([][]conformance.Result, len(defects))
	// Most of the time is waiting for what does not come, so many run beside one another.
	few, many := make(chan struct{}, 8), make(chan struct{}, 512)
	var wg sync.WaitGroup
	for i, f := range defects {
		places := many
		switch {
		case f.defect != none && underRace:
			cases[i] = sample(small, f)
		case f.defect == none && !underRace:
			cases[i], places = all, few
		default:
			cases[i] = small
		}
		got[i] = make([]conformance.Result, len(cases[i]))
		s := echoServer{f.defect}.start(t)
		for j := range cases[i] {
			places <- struct{}{}
			wg.Go(func() {
				defer func() { <-places }()
				got[i][j] = conformance.Run(s, &cases[i][j], nil)
			})
		}
		if f.defect == none {
			wg.Wait()
		}
	}
	wg.Wait()
	for i, f := range defects {
		name := string(f.defect)
		if f.defect == none {
			name = "does all right"
		}
		t.Run(name, func(t *testing.T) {
			for j := range cases[i] {
				c := &cases[i][j]
				if want := f.verdict(c); got[i][j].Verdict != want {
					t.Errorf("%s, %s: %s, expected %s: %s", c.ID, c.About, got[i][j].Verdict, want, got[i][j].Why)
				}
			}
		})
	}
}

// verdict returns what c finds.
func (f *found) verdict(c *conformance.Case) conformance.Verdict {
	switch {
	case matches(f.failed, c.ID) || f.also != nil && f.also(c):
		return conformance.Failed
	case matches(f.nonStrict, c.ID):
		return conformance.NonStrict
	}
	return conformance.OK
}

// sample returns some of the cases that find the defect, and some of those that do not.
func sample(cases []conformance.Case, f found) (some []conformance.Case) {
	seen := map[conformance.Verdict]int{}
	for _, c := range cases {
		v := f.verdict(&c)
		every := 16
		if v != conformance.OK {
			every = 4
		}
		if seen[v]%every == 0 {
			some = append(some, c)
		}
		seen[v]++
	}
	return some
}

// isLarge reports whether c is about large messages, or many fragments.
func isLarge(c conformance.Case) bool {
	if c.Rounds != nil {
		return c.Rounds.Size > 16384
	}
	sent := 0
	for _, s := range c.Steps {
		for _, f := range s.Frames {
			sent += len(f.Payload)
		}
	}
	return sent > 1<<17
}

// matches reports whether one of the patterns is of id.
func matches(patterns, id string) bool {
	for p := range strings.FieldsSeq(patterns) {
		if ok, err := path.Match(p, id); err != nil {
			panic(fmt.Sprint(p, ": ", err))
		} else if ok {
			return true
		}
	}
	return false
}
