package config

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/fanfare/fanfare/authn/keyvault"
	"github.com/fanfare/fanfare/authn/managed"
	"github.com/fanfare/fanfare/engine"
)

// Managed returns the identity as Azure knows it; it has one unless its type is
// [IdentityNone] or [IdentityLocal].
func (i Identity) Managed() managed.Identity {
	return managed.Identity{Type: managed.Type(i.Type), ClientID: i.ClientID, ObjectID: i.ObjectID, ResourceID: i.ResourceID}
}

var identityTypes = []string{IdentityNone, string(managed.SystemAssigned), string(managed.UserAssigned), string(managed.WorkloadIdentity), IdentityLocal}

// identity checks that there is one identity, selected in one way, and the vaults
// that it may be shown to.
func (d *decoder) identity(c *Config) {
	i := &c.Identity
	i.Type = d.oneOf(i.Type, "identity.type", identityTypes...)
	switch i.Type {
	case IdentityNone, IdentityLocal:
		for key, value := range map[string]string{"clientId": i.ClientID, "objectId": i.ObjectID, "resourceId": i.ResourceID} {
			if value != "" {
				d.bad("identity."+key, "selects an identity of Azure's; not used with identity.type %s", i.Type)
			}
		}
		if i.Type == IdentityNone && i.DefaultResource != "" {
			d.bad("identity.defaultResource", "set without an identity; expected identity.type to be %s", strings.Join(identityTypes[1:], ", "))
		}
	case string(managed.SystemAssigned), string(managed.UserAssigned), string(managed.WorkloadIdentity):
		if err := i.Managed().Check(); err != nil {
			path := "identity"
			if e, ok := errors.AsType[*engine.Error](err); ok {
				path += "." + e.Target
			}
			d.bad(path, "%s", said(err))
		}
	}
	d.resource(i.DefaultResource, "identity.defaultResource")
	for n, host := range c.KeyVault.AllowedHosts {
		if _, err := keyvault.NewHosts(host); err != nil {
			d.bad(fmt.Sprintf("keyVault.allowedHosts[%d]", n), "%s", said(err))
		}
	}
}

// resource checks what a token is to be for.
func (d *decoder) resource(s, path string) {
	if s == "" {
		return
	}
	if err := managed.CheckResource(strings.TrimSuffix(s, "/.default")); err != nil {
		d.bad(path, "%s", said(err))
	}
}

// auth checks how the node proves itself to a handler.
func (d *decoder) auth(a *Auth, path string, c *Config) {
	if a.Type == "" {
		a.Type = "None"
	}
	a.Type = d.oneOf(a.Type, join(path, "type"), "None", AuthManagedIdentity)
	resource := join(path, "managedIdentity.resource")
	switch {
	case a.Type == "None" && a.ManagedIdentity != (ManagedIdentity{}):
		d.bad(resource, "set without %s ManagedIdentity; expected both or none", join(path, "type"))
	case a.Type != AuthManagedIdentity:
	case c.Identity.Type == IdentityNone:
		d.bad(join(path, "type"), "the node has no identity; expected identity.type to be %s, or no authentication here", strings.Join(identityTypes[1:], ", "))
	case a.ManagedIdentity.Resource == "" && c.Identity.DefaultResource == "":
		d.bad(join(path, "type"), "names no resource; expected one in managedIdentity.resource, such as api://my-handler, or in identity.defaultResource")
	default:
		d.resource(a.ManagedIdentity.Resource, resource)
	}
}

// reference matches a reference to a secret in a URL template. What it is in its
// whole, package webhook judges.
var reference = regexp.MustCompile(`(?i)\{@Microsoft\.KeyVault\(SecretUri=(.*?)\)\}`)

// Secrets returns the URIs of the secrets that the template of h refers to. They
// are not secret themselves.
func (h EventHandler) Secrets() []string {
	var uris []string
	for _, m := range reference.FindAllStringSubmatch(h.URLTemplate.Reveal(), -1) {
		uris = append(uris, m[1])
	}
	return uris
}

// secrets checks that the node may read the secrets that a template refers to.
func (d *decoder) secrets(uris []string, path string, c *Config) {
	if len(uris) == 0 {
		return
	}
	if c.Identity.Type == IdentityNone {
		d.bad(path, "refers to a secret, and the node has no identity to read it with; expected identity.type to be %s", strings.Join(identityTypes[1:], ", "))
		return
	}
	hosts, err := keyvault.NewHosts(c.KeyVault.AllowedHosts...)
	if err != nil {
		return // told already
	}
	for _, s := range uris {
		u, err := keyvault.ParseURI(s)
		if err == nil {
			err = hosts.Check(u)
		}
		switch {
		case err != nil:
			d.bad(path, "%s", said(err))
		case u.Azure() && c.Identity.Type == IdentityLocal:
			d.bad(path, "refers to a vault of Azure's, which takes no tokens of identity.type Local; expected one of Azure's identities")
		}
	}
}

// unasked fills the seams of a webhook.Client that is only looked at.
type unasked struct{}

var errUnasked = errors.New("not asked while settings are judged")

func (unasked) Token(context.Context, string) (string, error)  { return "", errUnasked }
func (unasked) Secret(context.Context, string) (string, error) { return "", errUnasked }
