package authn

import (
	"strings"
	"sync/atomic"

	"github.com/fanfare/fanfare/authn/internal/audience"
	"github.com/fanfare/fanfare/engine"
)

// Hosts are the host names, beside the one that a request was sent to, that a
// token may be addressed to, or a request signed for. A node behind a reverse proxy
// is called by another name there than here, and what its callers sign bears that
// name.
//
// The name may have a path, too: https://example.com/rt is a service whose paths stand
// behind /rt, and the proxy may have removed that from what it sends on; see
// [Hosts.SetPath].
//
// It is safe for concurrent use; a nil *Hosts has none.
type Hosts struct {
	list atomic.Pointer[[]string]
	path atomic.Pointer[string]
}

// NewHosts returns the given hosts; see [Hosts.Set].
func NewHosts(hosts ...string) (*Hosts, error) {
	h := new(Hosts)
	return h, h.Set(hosts...)
}

// Set replaces the hosts at once. Each is a host name or address, with a port
// unless it is 80 or 443, without a scheme or path. On an error nothing changes.
func (h *Hosts) Set(hosts ...string) error {
	list := make([]string, 0, len(hosts))
	for _, host := range hosts {
		if host == "" || strings.ContainsAny(host, "/?#@ \t") {
			return engine.Errorf(engine.CodeInvalid, "audience.host",
				"%q is not an audience host: expected a name like rt.example.com or rt.example.com:8443.", host)
		}
		list = append(list, strings.ToLower(audience.Host(host)))
	}
	h.list.Store(&list)
	return nil
}

// SetPath sets the path that the service's own paths stand behind where its callers see
// them: empty, or like /rt, without a slash at its end. On an error nothing changes.
func (h *Hosts) SetPath(path string) error {
	if path != "" && (path[0] != '/' || strings.HasSuffix(path, "/") || strings.ContainsAny(path, "?#% \t")) {
		return engine.Errorf(engine.CodeInvalid, "audience.path",
			"%q is not a path in front of a service: expected one like /rt, without escapes and without a slash at its end.", path)
	}
	h.path.Store(&path)
	return nil
}

// Paths returns what the path of a request may have been where its caller saw it: the
// path as it is, and with the service's own path before it, or without that where the
// request has it.
func (h *Hosts) Paths(path string) []string {
	if h == nil {
		return []string{path}
	}
	prefix := h.path.Load()
	if prefix == nil || *prefix == "" {
		return []string{path}
	}
	if rest, ok := strings.CutPrefix(path, *prefix); ok && strings.HasPrefix(rest, "/") {
		return []string{path, rest}
	}
	return []string{path, *prefix + path}
}

// Accept reports whether a token for host may be used in a request that was sent
// to addressed. Both may carry ports; default ports and letter case make no
// difference.
func (h *Hosts) Accept(host, addressed string) bool {
	if audience.SameHost(host, addressed) {
		return true
	}
	for _, other := range h.Names() {
		if audience.SameHost(host, other) {
			return true
		}
	}
	return false
}

// String lists the hosts, for refusals to say what would have passed.
func (h *Hosts) String() string { return strings.Join(h.Names(), ", ") }

// Names returns the hosts in lower case, without default ports. The caller must not
// change the slice.
func (h *Hosts) Names() []string {
	if h == nil {
		return nil
	}
	if list := h.list.Load(); list != nil {
		return *list
	}
	return nil
}
