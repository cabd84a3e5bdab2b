package main

import (
	"fmt"
	"net/url"
	"slices"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
	"github.com/fanfare/fanfare/transport/websocket"
)

// origins are the allowed origins of one version of the settings. They are not
// changed.
type origins struct {
	hubs map[string]*websocket.Origins // by name in the settings; those with a list of their own
	node *websocket.Origins            // nil for all origins
	// certificate is for clients that nothing but a certificate proves; nil if the
	// settings list the origins.
	certificate *websocket.Origins

	callers *websocket.Origins // of REST and the identity API; nil for none
}

// newOrigins returns what c says about origins.
func newOrigins(c *config.Config) (*origins, error) {
	o := &origins{hubs: map[string]*websocket.Origins{}}
	for name, hub := range c.Hubs {
		listed, err := listedOrigins(hub.AllowedOrigins, "hubs."+name+".allowedOrigins")
		if err != nil {
			return nil, err
		}
		if listed != nil {
			o.hubs[name] = listed
		}
	}
	var err error
	if o.callers, err = listedOrigins(c.CORS.AllowedOrigins, "cors.allowedOrigins"); err != nil {
		return nil, err
	}
	switch o.node, err = listedOrigins(c.AllowedOrigins, "allowedOrigins"); {
	case err != nil:
		return nil, err
	case o.node != nil:
	case c.Development():
		// Everyone has the key, so every page that a developer opens has a token. Only
		// the page's origin tells the developer's own from others.
		o.node = &websocket.Origins{Loopback: true, Setting: "allowedOrigins"}
	default:
		o.certificate = &websocket.Origins{Own: true, Setting: "allowedOrigins"}
		if u, err := url.Parse(c.PublicEndpoint); err == nil && u.Host != "" {
			own, err := websocket.ParseOriginPattern(u.Scheme + "://" + u.Host)
			if err != nil {
				return nil, fmt.Errorf("publicEndpoint: %w", err)
			}
			o.certificate = &websocket.Origins{Patterns: []websocket.OriginPattern{own}, Setting: "allowedOrigins"}
		}
	}
	return o, nil
}

// listedOrigins returns the origins of a list, nil for an empty one.
func listedOrigins(list []string, setting string) (*websocket.Origins, error) {
	if len(list) == 0 {
		return nil, nil
	}
	o := &websocket.Origins{Setting: setting}
	for i, s := range list {
		p, err := websocket.ParseOriginPattern(s)
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", setting, i, err)
		}
		o.Patterns = append(o.Patterns, p)
	}
	return o, nil
}

// allowsCaller reports whether pages of an origin may call REST and the identity API.
func (o *origins) allowsCaller(origin string) bool {
	return o.callers != nil && slices.ContainsFunc(o.callers.Patterns, func(p websocket.OriginPattern) bool { return p.Matches(origin) })
}

// allowedOrigins returns the origins whose pages may connect a client, nil for all.
func (n *node) allowedOrigins(r websocket.OriginRequest) *websocket.Origins {
	now := n.settings.Load()
	name := string(r.Hub)
	if _, named := now.config.Hubs[name]; !named {
		name = "*"
	}
	if listed := now.origins.hubs[name]; listed != nil {
		return listed
	}
	if now.origins.node == nil && r.Certificate && !r.Token {
		return now.origins.certificate
	}
	return now.origins.node
}
