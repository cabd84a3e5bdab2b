package main

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanfare/fanfare/authn/clientcert"
	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
	"github.com/fanfare/fanfare/engine"
)

// trust is what a hub asks of client certificates, as its files have it. As with
// a certificate, handshakes look whether they have changed.
type trust struct {
	// Fixed at birth.
	settings config.ClientCerts
	log      *slog.Logger
	now      func() time.Time

	current atomic.Pointer[clientcert.Policy]

	mu      sync.Mutex // guards the rest; nobody waits for it while files are read
	stamp   string     // of the files that were read last
	checked time.Time  // when they were last looked at
}

// trusts are those of one version of the settings, by the hub's name there. They
// are not changed.
type trusts map[string]*trust

// newTrusts reads the files that c names.
func newTrusts(c *config.Config, log *slog.Logger) (trusts, error) {
	all := trusts{}
	for name, hub := range c.Hubs {
		if !hub.ClientCertificates.Set() {
			continue
		}
		t := &trust{settings: hub.ClientCertificates, log: log.With("room", "clientcert", "settings", "hubs."+name), now: time.Now}
		t.stamp = t.stampNow()
		p, err := t.settings.Policy(t.log)
		if err != nil {
			return nil, fmt.Errorf("hubs.%s.clientCertificates.%w", name, err)
		}
		t.current.Store(p)
		all[name] = t
	}
	return all, nil
}

func (t *trust) stampNow() string { return stampOf(t.settings.CAFile, t.settings.CRLFile) }

// policy returns what the files hold. While they do not hold anything usable, and
// while a new one is being read, it is what they held before.
func (t *trust) policy() *clientcert.Policy {
	if !t.mu.TryLock() {
		return t.current.Load()
	}
	defer t.mu.Unlock()
	now := t.now()
	if now.Sub(t.checked) < checkEvery {
		return t.current.Load()
	}
	t.checked = now
	stamp := t.stampNow()
	if stamp == t.stamp {
		return t.current.Load()
	}
	p, err := t.settings.Policy(t.log)
	if err != nil {
		t.log.Warn("the files about client certificates have changed and cannot be used; what they held before stays in force", "error", err)
	} else {
		t.current.Store(p)
		t.log.Info("the files about client certificates were read again")
	}
	t.stamp = stamp // broken files are told of once
	return t.current.Load()
}

// certificates returns what a hub asks of client certificates; nil for nothing.
func (n *node) certificates(hub engine.HubName) *clientcert.Policy {
	now := n.settings.Load()
	name := string(hub)
	if _, named := now.config.Hubs[name]; !named {
		name = "*"
	}
	if t := now.trusts[name]; t != nil {
		return t.policy()
	}
	return nil
}

// besidesTokens says what else than a token opens a hub.
func (n *node) besidesTokens(hub engine.HubName) string {
	if n.certificates(hub) == nil {
		return ""
	}
	return "a client certificate that the hub trusts"
}
