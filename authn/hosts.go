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
// It is safe for concurrent use; a nil *Hosts has none.
type Hosts struct {
	list atomic.Pointer[[]string]
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
