// Package managed is the identity that Azure gives this service, and the tokens
// with which the service proves it to others: to event handlers, to vaults.
//
//   - [Identity] says which one it is: system-assigned, user-assigned, or a
//     workload identity of Kubernetes. A service has one, never two.
//   - [Tokens] gets tokens for it, keeps them, and renews them ahead of time.
//
// Where the tokens come from is up to where the service runs, and found out by
// Microsoft's azidentity: the endpoint that App Service, Functions and Container
// Apps name in the environment, that of Service Fabric, Azure Arc, Cloud Shell
// and Azure ML likewise, and the metadata service of virtual machines where there
// is none of these. Workload identity exchanges the token that Kubernetes keeps
// in a file.
//
// # Caveats
//
// The library keeps tokens of managed identities for the whole process, by
// identity and resource: two Tokens of one identity share what was fetched.
package managed

import (
	"fmt"
	"net/http"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/fanfare/fanfare/authn/internal/calls"
	"github.com/fanfare/fanfare/engine"
)

// Type is a kind of identity, in the words of Azure's resource properties.
type Type string

// The types.
const (
	// SystemAssigned is the identity that is one with the machine or app.
	SystemAssigned Type = "SystemAssigned"
	// UserAssigned is one of several identities that the machine or app was given.
	UserAssigned Type = "UserAssigned"
	// WorkloadIdentity is the identity of a service account of Kubernetes.
	WorkloadIdentity Type = "WorkloadIdentity"
)

// Identity says which identity the service has.
type Identity struct {
	Type Type
	// ClientID, ObjectID and ResourceID select a user-assigned identity: exactly
	// one is set. For a workload identity ClientID stands instead of the
	// AZURE_CLIENT_ID of the environment, and the others are empty.
	ClientID, ObjectID, ResourceID string
}

// maxSelector bounds an id; that of a resource is the longest.
const maxSelector = 1024

// Check reports what is wrong with i: a type that is none, or other selectors
// than the type asks for. The error is an *[engine.Error] whose Target is the
// setting at fault: "type", "clientId", "objectId" or "resourceId".
func (i Identity) Check() error {
	refuse := func(target, format string, args ...any) error {
		return &engine.Error{Code: engine.CodeInvalid, Rule: "identity." + target, Target: target, Message: fmt.Sprintf(format, args...)}
	}
	selectors := []struct{ name, value string }{{"clientId", i.ClientID}, {"objectId", i.ObjectID}, {"resourceId", i.ResourceID}}
	first := ""
	for _, s := range selectors {
		switch {
		case s.value == "":
			continue
		case len(s.value) > maxSelector:
			return refuse(s.name, "The id has %d bytes; at most %d are allowed.", len(s.value), maxSelector)
		case i.Type == SystemAssigned:
			return refuse(s.name, "A system-assigned identity is not selected by an id; without one, or with the type UserAssigned, this would pass.")
		case i.Type == WorkloadIdentity && s.name != "clientId":
			return refuse(s.name, "A workload identity is selected by clientId, or by AZURE_CLIENT_ID in the environment.")
		case first != "":
			return refuse(s.name, "There is %s besides; exactly one of clientId, objectId and resourceId selects the identity.", first)
		}
		first = s.name
	}
	switch i.Type {
	case SystemAssigned, WorkloadIdentity:
	case UserAssigned:
		if first == "" {
			return refuse("type", "A user-assigned identity is selected by clientId, objectId or resourceId; exactly one must be set.")
		}
	default:
		return refuse("type", "There is no type %.64q of identity; %s, %s and %s would pass.", i.Type, SystemAssigned, UserAssigned, WorkloadIdentity)
	}
	return nil
}

// String says which identity it is, for logs.
func (i Identity) String() string {
	switch {
	case i.Type == WorkloadIdentity:
		return "workload identity"
	case i.ClientID != "":
		return "user-assigned identity (client id " + i.ClientID + ")"
	case i.ObjectID != "":
		return "user-assigned identity (object id " + i.ObjectID + ")"
	case i.ResourceID != "":
		return "user-assigned identity (resource id " + i.ResourceID + ")"
	}
	return "system-assigned identity"
}

// CredentialOptions are for those who stand where Azure's defaults do not hold.
// Nil and zero mean the defaults.
type CredentialOptions struct {
	// Transport carries the requests for tokens. Default: a client that follows no
	// redirects, bounds what it reads, and, but for workload identity, uses no proxy.
	Transport policy.Transporter
	// Retry says how often a failed request is repeated, and after which pauses.
	// Default: that of azidentity, which knows what the metadata service needs.
	Retry policy.RetryOptions
}

// maxReply bounds the reply of a token endpoint.
const maxReply = 256 << 10

// Credential returns the credential of the identity. It does no I/O, but reads
// the environment, which tells where tokens come from.
func (i Identity) Credential(o *CredentialOptions) (azcore.TokenCredential, error) {
	if err := i.Check(); err != nil {
		return nil, err
	}
	if o == nil {
		o = &CredentialOptions{}
	}
	options := azcore.ClientOptions{Transport: o.Transport, Retry: o.Retry}
	wrap := func(c azcore.TokenCredential, err error) (azcore.TokenCredential, error) {
		if err != nil {
			return nil, fmt.Errorf("managed: %s: %w", i, err)
		}
		return c, nil
	}
	if i.Type == WorkloadIdentity {
		if options.Transport == nil {
			options.Transport = calls.NewClient(calls.Options{Proxy: http.ProxyFromEnvironment, MaxBody: maxReply})
		}
		return wrap(asCredential(azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: options, ClientID: i.ClientID,
			// The authority is the operator's own setting. Asking Microsoft about it
			// would be a call to a host that nobody named.
			DisableInstanceDiscovery: true,
		})))
	}
	if options.Transport == nil {
		// These endpoints are on the machine itself: no proxy reaches them.
		if os.Getenv("IDENTITY_SERVER_THUMBPRINT") != "" {
			// Of Service Fabric the library pins the certificate, for which it needs
			// a plain client.
			options.Transport = &http.Client{Transport: calls.NewTransport(calls.Options{})}
		} else {
			options.Transport = calls.NewClient(calls.Options{MaxBody: maxReply})
		}
	}
	m := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}
	switch {
	case i.ClientID != "":
		m.ID = azidentity.ClientID(i.ClientID)
	case i.ObjectID != "":
		m.ID = azidentity.ObjectID(i.ObjectID)
	case i.ResourceID != "":
		m.ID = azidentity.ResourceID(i.ResourceID)
	}
	return wrap(asCredential(azidentity.NewManagedIdentityCredential(m)))
}

// asCredential gives what the library's constructors return one type.
func asCredential[C azcore.TokenCredential](c C, err error) (azcore.TokenCredential, error) {
	return c, err
}
