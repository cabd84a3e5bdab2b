package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
)

// directory is the issuer of application servers' tokens that the settings name,
// if they do. It stays as long as its settings do, and with it the keys that it
// has read, which may be the last ones to be had for a while.
type directory struct {
	node    *node
	life    context.Context // ends with close
	end     context.CancelFunc
	reading sync.WaitGroup

	mu     sync.Mutex // guards the rest
	closed bool
	key    directoryKey
	issuer *entra.Issuer // nil if there is none
	old    []*entra.Issuer
}

// directoryKey is what an issuer is made from.
type directoryKey struct {
	authority, tenant string
	keep              time.Duration
}

// schemes prove callers by tokens of a directory.
type schemes struct {
	servers  *entra.Servers // application servers at the data plane
	managers *entra.Servers // those that manage users
	users    *entra.Users   // users who exchange their tokens
}

func newDirectory(n *node) *directory {
	d := &directory{node: n}
	d.life, d.end = context.WithCancel(context.Background())
	return d
}

// use returns the schemes that c asks for; nil if it asks for none. On an error
// nothing changes.
func (d *directory) use(c *config.Config) (*schemes, error) {
	roles, err := c.Entra.Roles()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var key directoryKey
	if c.Entra.Enabled() {
		key = directoryKey{c.Entra.Authority, c.Entra.TenantID, c.Entra.KeepKeys}
	}
	if key != d.key {
		var issuer *entra.Issuer
		if c.Entra.Enabled() {
			if issuer, err = d.open(key); err != nil {
				return nil, err
			}
		}
		if d.issuer != nil {
			d.old = append(d.old, d.issuer)
		}
		d.key, d.issuer = key, issuer
	}
	if d.issuer == nil {
		return nil, nil
	}
	managing := c.Users.Audiences
	if len(managing) == 0 {
		managing = []string{entra.AudienceCommunication}
	}
	return &schemes{
		servers:  entra.NewServers(d.issuer, c.Entra.Audiences, roles),
		managers: entra.NewServers(d.issuer, entra.EitherSlash(managing...), roles),
		users:    entra.NewUsers(d.issuer, entra.EitherSlash(c.Users.Exchange.Audiences...)),
	}, nil
}

// open makes an issuer and has it read its keys. The node does not wait for that:
// it serves whoever comes with an access key meanwhile.
func (d *directory) open(key directoryKey) (*entra.Issuer, error) {
	issuer, err := entra.NewIssuer(key.authority, key.tenant, &entra.IssuerOptions{
		KeepKeys: key.keep,
		Wrap:     func(base http.RoundTripper) http.RoundTripper { return d.node.tracing.upstream(base) },
		Logger:   d.node.log.With("room", "entra"),
	})
	if err != nil {
		return nil, err
	}
	if !d.closed {
		d.reading.Go(func() { // ends with the reading, or with life
			_ = issuer.Refresh(d.life) // the issuer's log tells of a failure
		})
	}
	return issuer, nil
}

// stats returns the counters of the issuer; zero while there is none.
func (d *directory) stats() entra.Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.issuer == nil {
		return entra.Stats{}
	}
	return d.issuer.Stats()
}

// retire lets go of the issuers that the settings name no more.
func (d *directory) retire() {
	d.mu.Lock()
	old := d.old
	d.old = nil
	d.mu.Unlock()
	for _, issuer := range old {
		issuer.Close()
	}
}

// close ends it all.
func (d *directory) close() {
	d.mu.Lock()
	d.closed = true
	if d.issuer != nil {
		d.old = append(d.old, d.issuer)
		d.issuer = nil
	}
	d.mu.Unlock()
	d.end()
	d.retire()
	d.reading.Wait()
}
