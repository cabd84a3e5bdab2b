package config

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Reloader reads the settings of a node again and again. Settings that are to
// replace others must pass more than those of a start: a file that was cut short,
// or is gone, must not open what the settings in force keep closed.
//
// It is not safe for concurrent use.
type Reloader struct {
	running *Config // nil before the first call of Use
	text    []byte  // of the file that running was read from
	read    []byte  // of the file that was read last
}

// Load reads and judges the settings as [Load] does. Once some are in force (see
// [Reloader.Use]) these are judged as their replacement, too:
//
//   - the file must not change while it is read, hold no settings, or end in the
//     middle of a line where the one in force does not;
//   - the development key opens no node that it did not open before, and an access
//     key of the node's own is not removed;
//   - what keeps clients or servers out is not lost because a key is missing: it
//     changes where the key is written.
func (l *Reloader) Load(s Sources) (*Config, Problems, error) {
	d := &decoder{places: map[string]place{}, read: read}
	if l.running != nil {
		d.read = readSettled
	}
	c := d.load(s)
	l.read = d.source
	if l.running != nil && s.File != "" {
		d.wholeFile(s.File, d.source, l.text)
	}
	if l.running != nil && len(d.problems) == 0 {
		d.replace(l, c)
	}
	return d.result(c)
}

// Use says that the settings which Load returned last are in force.
func (l *Reloader) Use(c *Config) { l.running, l.text = c, l.read }

// A file is read again until it has stayed the same for a pause, at most so often.
const (
	settlePause = 50 * time.Millisecond
	settleTries = 10
)

// readSettled is read for a file that somebody may be writing: the file must be the
// same before and after it was read, and a pause later.
func readSettled(path string) ([]byte, error) {
	for range settleTries {
		before, err := os.Stat(path)
		if err != nil {
			return nil, cause(err)
		}
		text, err := read(path)
		if err != nil {
			return nil, err
		}
		time.Sleep(settlePause)
		after, err := os.Stat(path)
		if err != nil {
			return nil, cause(err)
		}
		if os.SameFile(before, after) && after.Size() == int64(len(text)) && before.Size() == after.Size() && before.ModTime().Equal(after.ModTime()) {
			return text, nil
		}
	}
	return nil, fmt.Errorf("it changed each of %d times it was read; expected a file that is complete: write another one and rename it", settleTries)
}

// wholeFile refuses a file that is empty or was cut in the middle of a line.
func (d *decoder) wholeFile(name string, text, running []byte) {
	at := place{layer: fromFile, name: name}
	switch {
	case len(d.problems) > 0:
	case d.empty:
		d.problem(at, "", "holds no settings; expected the whole file: to go back to the defaults takes a restart")
	case bytes.HasSuffix(running, []byte("\n")) && !bytes.HasSuffix(text, []byte("\n")):
		d.problem(at, "", "ends in the middle of a line, so it may have been cut short; expected the whole file with a line feed at its end, as the one in force has")
	}
}

// replace judges c as the replacement of the settings in force.
func (d *decoder) replace(l *Reloader, c *Config) {
	d.keepKeys(l.running, c)
	if l.running.DisableLocalAuth && !c.DisableLocalAuth && !d.written("disableLocalAuth") {
		d.lost("disableLocalAuth", "access keys would open this node again")
	}
	if c.DisableLocalAuth && l.running.Entra.Enabled() && !c.Entra.Enabled() {
		d.lost("entra.tenantId", "servers would have no way in while disableLocalAuth is true")
	}
	if !opens(l.running) {
		d.keepValues(reflect.ValueOf(l.running).Elem(), c)
	}
	names := map[string]bool{}
	for name := range l.running.Hubs {
		names[name] = true
	}
	for name := range c.Hubs {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		d.replaceHub(name, l, c)
	}
}

// opens reports whether everybody who reaches a node with these settings may use it.
func opens(c *Config) bool { return c.Development() && !c.DisableLocalAuth }

// keepKeys refuses the loss of the node's own access key: the development key would
// replace it, and what it signs (tokens that the node generates, also while
// disableLocalAuth is true) would end.
func (d *decoder) keepKeys(running, c *Config) {
	own := func(k Secret) bool { return k != "" && k != DevelopmentKey }
	const pass = "expected an access key of your own; to do without one takes a restart"
	path := "accessKeys.primary"
	if own(c.AccessKeys.Primary) {
		path = "accessKeys.secondary"
	}
	switch {
	case opens(c) && !opens(running):
		d.bad(path, "the development key, which everyone knows, would open this node; %s", pass)
	case own(running.AccessKeys.Primary) && !own(c.AccessKeys.Primary):
		d.bad(path, "the access key in force would be removed; %s", pass)
	}
}

// closing are the keys whose defaults may let more in than the values they have.
var closing = []string{
	"allowedOrigins",
	"entra.authority", "entra.audiences", "users.audiences", "users.exchange.audiences",
	"users.scopes.chat.hubs", "users.scopes.chat.roles",
}

// keepValues refuses that the default replaces a value because its key is missing.
func (d *decoder) keepValues(running reflect.Value, c *Config) {
	for _, path := range closing {
		old, _ := find(running, keyPath{}, path)
		now, _ := find(reflect.ValueOf(c).Elem(), keyPath{}, path)
		unused := strings.HasPrefix(path, "entra.") && !c.Entra.Enabled()
		if !unused && !d.written(path) && !reflect.DeepEqual(old.Interface(), now.Interface()) {
			d.lost(path, "its default would let in what the value in force may not")
		}
	}
}

// replaceHub judges what would become of one hub, by its name in either settings.
func (d *decoder) replaceHub(name string, l *Reloader, c *Config) {
	path := join("hubs", name)
	old, now := l.running.Hub(name), c.Hub(name)
	if old.AnonymousConnectPolicy != "allow" && now.AnonymousConnectPolicy == "allow" && !d.written(join(path, "anonymousConnectPolicy")) {
		d.lost(join(path, "anonymousConnectPolicy"), `clients without a token would get in by the settings of hub "*"`)
	}
	if listed := old.AllowedOrigins; len(listed) > 0 && len(now.AllowedOrigins) == 0 && !slices.Equal(listed, c.AllowedOrigins) && !d.written(join(path, "allowedOrigins")) {
		d.lost(join(path, "allowedOrigins"), "pages of other origins could connect to the hub")
	}
	d.keepHandlers(join(path, "eventHandlers"), old.EventHandlers, now.EventHandlers, l)

	certs := join(path, "clientCertificates")
	was, is := old.ClientCertificates, now.ClientCertificates
	switch _, named := c.Hubs[name]; {
	case !is.Set() || reflect.DeepEqual(was, is):
	case !named:
		d.lost(certs, `the certificates that hub "*" trusts would let clients in`)
	case was.CRLFile != "" && is.CRLFile == "" && !d.written(join(certs, "crlFile")):
		d.lost(join(certs, "crlFile"), "clients with revoked certificates would get in")
	case was.Set() && was.User != is.User && !d.written(join(certs, "user")):
		d.lost(join(certs, "user"), "clients would be other users than before")
	}
}

// keepHandlers refuses that a hub's event handlers are lost because a file was cut:
// those for connect, which may refuse clients, and all of them where the file is the
// beginning of the one in force. A node that everybody may use has none to lose.
func (d *decoder) keepHandlers(path string, old, now []EventHandler, l *Reloader) {
	asks := func(h EventHandler) bool { return slices.Contains(h.SystemEvents, "connect") }
	written := d.written(path)
	cutList := written && len(now) > 0 && len(now) < len(old) && reflect.DeepEqual(old[:len(now)], now)
	cutFile := len(l.read) < len(l.text) && bytes.HasPrefix(l.text, l.read)
	const pass = "expected the whole list, or [] for no handlers; to do without this one alone takes a restart"
	switch {
	case slices.ContainsFunc(old, asks) && !slices.ContainsFunc(now, asks) && (!written || cutList):
		d.bad(path, "the handler that the event connect is sent to is missing, so clients that it refuses would get in; %s", pass)
	case len(old) > 0 && len(now) == 0 && !written && cutFile && !opens(l.running):
		d.bad(path, "missing, and the file is the beginning of the one in force, so it may have been cut short; %s", pass)
	}
}

// written reports whether the key itself was set, in whatever layer.
func (d *decoder) written(path string) bool {
	_, ok := d.places[path]
	return ok
}

// lost is the refusal of settings that do not have a key which those in force have.
func (d *decoder) lost(path, why string) {
	d.bad(path, "missing, and with it %s; expected the key with the value that is meant, which the settings in force have", strings.TrimSuffix(why, "."))
}
