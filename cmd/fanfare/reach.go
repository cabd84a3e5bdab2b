package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
	"github.com/fanfare/fanfare/engine"
)

// reach are the flags of commands that talk to a node: which hub, with what key,
// and where.
type reach struct {
	settings
	hub              string
	connectionString string
	address          string
}

func (r *reach) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.hub, "hub", "", "the `hub` (required)")
	f.StringVar(&r.connectionString, "connection-string", "", "the node's connection `string` (also FANFARE_CONNECTION_STRING; default: that of a node with the same file and environment, or the development one)")
	f.StringVar(&r.address, "address", "", "`host:port` of the door, if it listens elsewhere than the endpoint says")
	r.fileFlag(cmd)
}

// service is a node to talk to.
type service struct {
	accesskey.ConnectionString
	hub engine.HubName
	// address is where the door listens.
	address string
	self    string // what to type to run this program
}

// find reads the flags.
func (r *reach) find(cmd *cobra.Command, w *world) (*service, error) {
	if r.hub == "" {
		return nil, usagef(cmd, "--hub is missing")
	}
	hub, err := engine.ParseHubName(r.hub)
	if err != nil {
		return nil, usagef(cmd, "--hub: %s", said(err))
	}
	c, err := r.connection(cmd, w)
	if err != nil {
		return nil, err
	}
	s := &service{c, hub, c.Addr(), w.Self}
	if r.address != "" {
		host, port, err := net.SplitHostPort(r.address)
		if err != nil || host == "" || port == "" {
			return nil, usagef(cmd, "--address: found %q; expected HOST:PORT", r.address)
		}
		s.address = r.address
	}
	return s, nil
}

// connection returns the connection string that the flag or the environment
// holds, or else that of a node which is set up by the same file and environment.
func (r *reach) connection(cmd *cobra.Command, w *world) (c accesskey.ConnectionString, err error) {
	for _, from := range []struct{ name, text string }{
		{"--connection-string", r.connectionString},
		{"FANFARE_CONNECTION_STRING", w.getenv("FANFARE_CONNECTION_STRING")},
	} {
		if from.text == "" {
			continue
		}
		if c, err = accesskey.ParseConnectionString(from.text); err != nil {
			return c, usagef(cmd, "%s: %s", from.name, said(err))
		}
		return c, nil
	}
	settings, _, err := r.load(cmd, w)
	if err != nil {
		return c, &usageError{err: fmt.Errorf("the settings that hold the node's key have mistakes:\n%w", err), hint: "fanfare check"}
	}
	if settings.DisableLocalAuth {
		return c, usagef(cmd, "the node's settings switch access keys off (disableLocalAuth)")
	}
	if c.Key, err = accesskey.ParseKey(settings.Keys()[0].Reveal()); err != nil {
		return c, err
	}
	if c.Endpoint, err = staticEndpoint(settings); err != nil {
		return c, &usageError{err: err, hint: cmd.CommandPath()}
	}
	return c, nil
}

// staticEndpoint returns the endpoint of a node with these settings.
func staticEndpoint(c *config.Config) (string, error) {
	if c.PublicEndpoint != "" {
		return c.PublicEndpoint, nil
	}
	addr := textAddr(c.Listen)
	if strings.HasSuffix(c.Listen, ":0") {
		return "", errors.New("the node's port is chosen as it starts; give --connection-string as the node prints it")
	}
	return endpoint(c, addr), nil
}

// textAddr is an address that is known as text alone.
type textAddr string

func (textAddr) Network() string { return "tcp" }

func (a textAddr) String() string {
	if strings.HasPrefix(string(a), ":") {
		return netip.IPv6Unspecified().String() + string(a) // never parsed back: see reachable
	}
	return string(a)
}

// dial connects to the door, whatever host the endpoint names.
func (s *service) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	return d.DialContext(ctx, network, s.address)
}

// explain makes of a failure to reach the node a sentence that helps.
func (s *service) explain(err error) error {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("no node answers at %s: %s; look at the endpoint, or give --address HOST:PORT", s.address, dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("no node answers at %s: start one with '%s', or name another one with --connection-string", s.address, s.self)
	}
	return err
}

// said returns the words of an engine's error that are for people.
func said(err error) string {
	if e, ok := errors.AsType[*engine.Error](err); ok {
		return strings.TrimSuffix(e.Message, ".")
	}
	return err.Error()
}
