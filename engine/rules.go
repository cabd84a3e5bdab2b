package engine

import (
	"context"
	"reflect"
	"strings"
	"time"
)

// settings are a hub's options, compiled.
type settings struct {
	handlers  []*handlerRule
	listeners []*listenerRule
	keepAlive time.Duration
}

type handlerRule struct {
	system  map[string]bool
	users   eventMatcher
	handler EventHandler
	calls   *calls
}

// calls bound what is under way at one handler.
type calls struct {
	room  chan struct{} // a token for each call
	notes notifier
}

type listenerRule struct {
	system   map[string]bool
	users    eventMatcher
	listener func(context.Context, ListenedEvent)
}

// compileHub compiles o. A handler that before has too keeps its bounds, which
// count the calls that are under way. It returns the event names that are no
// valid patterns, and match nothing.
func compileHub(o *HubOptions, before *settings, l *Limits) (_ *settings, invalid []error) {
	if o == nil {
		o = &HubOptions{}
	}
	s := &settings{keepAlive: o.KeepAlive}
	if s.keepAlive == 0 {
		s.keepAlive = 20 * time.Second
	}
	for _, r := range o.Handlers {
		users, bad := compileEvents(r.UserEvents, true)
		invalid = append(invalid, bad...)
		s.handlers = append(s.handlers, &handlerRule{
			system: lowerSet(r.SystemEvents), users: users, handler: r.Handler,
			calls: before.callsOf(r.Handler, s, l.PendingEvents),
		})
	}
	for _, r := range o.Listeners {
		users, bad := compileEvents(r.UserEvents, false)
		invalid = append(invalid, bad...)
		s.listeners = append(s.listeners, &listenerRule{system: lowerSet(r.SystemEvents), users: users, listener: r.Listener})
	}
	return s, invalid
}

// callsOf returns the bounds of a handler: those it has already, in s or in the
// newer settings, or new ones.
func (s *settings) callsOf(h EventHandler, newer *settings, most int) *calls {
	for _, set := range []*settings{newer, s} {
		if set == nil || !reflect.ValueOf(h).Comparable() {
			continue
		}
		for _, r := range set.handlers {
			if reflect.ValueOf(r.handler).Comparable() && r.handler == h {
				return r.calls
			}
		}
	}
	return &calls{room: make(chan struct{}, most), notes: notifier{most: most}}
}

func lowerSet(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, n := range names {
		set[strings.ToLower(strings.TrimSpace(n))] = true
	}
	return set
}

// eventMatcher is a compiled list of event names.
type eventMatcher struct {
	any      bool
	names    map[string]bool
	patterns []Pattern
}

// compileEvents compiles "*", "a,b,c" or one name; with wild, names may be patterns.
func compileEvents(list string, wild bool) (_ eventMatcher, invalid []error) {
	m := eventMatcher{names: make(map[string]bool)}
	for _, name := range strings.Split(list, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		switch {
		case name == "":
		case name == "*":
			m.any = true
		case wild && strings.ContainsAny(name, `*?\`):
			p, err := ParsePattern(name)
			if err != nil {
				invalid = append(invalid, err)
				continue
			}
			m.patterns = append(m.patterns, p)
		default:
			m.names[name] = true
		}
	}
	return m, invalid
}

func (m *eventMatcher) match(name EventName) bool {
	if m.any {
		return true
	}
	n := strings.ToLower(string(name))
	if m.names[n] {
		return true
	}
	for _, p := range m.patterns {
		if p.Match(n) {
			return true
		}
	}
	return false
}

// userHandler returns the first rule that takes the user event.
func (s *settings) userHandler(event EventName) *handlerRule {
	for _, r := range s.handlers {
		if r.users.match(event) {
			return r
		}
	}
	return nil
}

// systemHandler returns the first rule that takes the system event.
func (s *settings) systemHandler(event string) *handlerRule {
	for _, r := range s.handlers {
		if r.system[event] {
			return r
		}
	}
	return nil
}
