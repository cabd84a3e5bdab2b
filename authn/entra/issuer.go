package entra

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// Authority is where Entra ID of the public cloud is.
const Authority = "https://login.microsoftonline.com"

// v1Issuers are the hosts that tokens of version 1.0 name as their issuer, by the
// host of the authority. Of an authority that is not listed it is the public one.
var v1Issuers = map[string]string{
	"login.partner.microsoftonline.cn": "https://sts.chinacloudapi.cn",
	"login.chinacloudapi.cn":           "https://sts.chinacloudapi.cn",
}

const publicV1 = "https://sts.windows.net"

// The bounds of reading an issuer's keys.
const (
	// pause is the least time between the beginnings of two readings.
	pause = 10 * time.Second
	// patience is what one reading, of both documents, may take.
	patience = 10 * time.Second
	// young is for how long nobody asks whether the keys have changed.
	young = time.Hour
	// maxWaiting is how many callers may wait for a reading: made-up key ids must not
	// pile up behind an issuer that is slow.
	maxWaiting = 1000
	// defaultKeep is for how long keys stay in use that cannot be read again.
	defaultKeep = 24 * time.Hour
)

// IssuerOptions are the knobs of an [Issuer]. Nil and zero mean the defaults.
type IssuerOptions struct {
	// KeepKeys is for how long keys stay in use while the issuer cannot be asked.
	// Default 24 h.
	KeepKeys time.Duration
	// TLS configures connections to the issuer. Default: the system's trust.
	TLS *tls.Config
	// Wrap puts a RoundTripper around the one that this package made, for traces
	// say.
	Wrap func(base http.RoundTripper) http.RoundTripper
	// Logger gets a line when keys cannot be read, and when they can again.
	// Default: discard.
	Logger *slog.Logger
}

// Issuer is one tenant of Entra ID, or another OpenID provider: the names that it
// goes by in tokens, and its keys. It is safe for concurrent use, and must be closed.
type Issuer struct {
	// Fixed at birth.
	authority string // without a slash at its end
	tenant    string // in lower case; empty for a provider without tenants
	v1, v2    string // the iss claims of a tenant
	keep      time.Duration
	web       *web
	log       *slog.Logger
	life      context.Context // ends with Close
	end       context.CancelFunc

	keys atomic.Pointer[keySet] // nil until they have been read

	readings sync.WaitGroup // added to with mu held and closed false

	mu       sync.Mutex // guards the rest; held for a few lines only
	closed   bool
	begun    time.Time     // when the last reading began
	done     chan struct{} // closed when the reading under way ends; nil while there is none
	waiting  int           // callers
	failure  error         // of the last reading that ended; nil if it went well
	attempts int64
	failures int64
}

// keySet is what one reading brought. It does not change.
type keySet struct {
	ids    []string                  // as they came
	keys   map[string]*rsa.PublicKey // by id
	issuer string                    // what the provider calls itself
	read   time.Time
}

// Stats are the counters of an [Issuer].
type Stats struct {
	Keys     int       // that are in use
	Read     time.Time // when they were read; zero if they never were
	Readings int64     // attempts to read them
	Failed   int64     // of these, how many failed
}

// NewIssuer returns the issuer of a tenant, whose id is a GUID, at an authority
// such as [Authority]. With an empty tenant it is any OpenID provider: authority
// is its issuer identifier. NewIssuer does no I/O. An error is an *engine.Error of
// engine.CodeInvalid whose Target is the parameter at fault.
func NewIssuer(authority, tenant string, o *IssuerOptions) (*Issuer, error) {
	if o == nil {
		o = &IssuerOptions{}
	}
	at, err := url.Parse(authority)
	if err != nil || !callable(at, true) || at.RawQuery != "" || at.Fragment != "" {
		e := invalid("entra.authority", "The authority is not usable: expected an https:// URL such as %s, or an http:// one of a loopback address.", Authority)
		e.Target = "authority"
		return nil, e
	}
	if tenant != "" && !isGUID(tenant) {
		e := invalid("entra.tenantid", "%s is no tenant's id: expected a GUID. Tokens of every tenant (common, organizations) cannot be asked for, since anybody may have one.", excerpt(tenant))
		e.Target = "tenantId"
		return nil, e
	}
	i := &Issuer{authority: strings.TrimRight(authority, "/"), tenant: strings.ToLower(tenant), keep: o.KeepKeys, log: o.Logger}
	if i.keep <= 0 {
		i.keep = defaultKeep
	}
	if i.log == nil {
		i.log = slog.New(slog.DiscardHandler)
	}
	if i.tenant != "" {
		v1 := v1Issuers[strings.ToLower(at.Hostname())]
		if v1 == "" {
			v1 = publicV1
		}
		i.v1, i.v2 = v1+"/"+i.tenant+"/", i.authority+"/"+i.tenant+"/v2.0"
	}
	i.web = newWeb(at.Scheme == "http", o)
	i.life, i.end = context.WithCancel(context.Background())
	return i, nil
}

// String returns the issuer's name, for logs.
func (i *Issuer) String() string {
	if i.tenant != "" {
		return i.v2
	}
	return i.authority
}

// Stats returns a snapshot of the counters.
func (i *Issuer) Stats() Stats {
	i.mu.Lock()
	s := Stats{Readings: i.attempts, Failed: i.failures}
	i.mu.Unlock()
	if set := i.keys.Load(); set != nil {
		s.Keys, s.Read = len(set.ids), set.read
	}
	return s
}

// Refresh reads the keys now, unless that was tried within the last ten seconds,
// and returns how the last reading went. A node calls it as it starts, so that
// its log tells at once of an issuer that is out of reach.
func (i *Issuer) Refresh(ctx context.Context) error {
	if err := i.wait(ctx, i.begin()); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed && i.failure == nil {
		return engine.Errorf(engine.CodeClosed, "entra.closed", "The issuer has been closed.")
	}
	return i.failure
}

// Close ends a reading under way and waits for it. Keys are not read any more from
// then on. It always returns nil and may be called again.
func (i *Issuer) Close() error {
	i.mu.Lock()
	i.closed = true
	i.mu.Unlock()
	i.end()
	i.readings.Wait()
	return nil
}

// find returns the keys, among which is the one of the given id.
func (i *Issuer) find(ctx context.Context, kid string) (*keySet, error) {
	set := i.usable()
	if set != nil && set.keys[kid] != nil {
		if time.Since(set.read) > young {
			i.begin() // whose end nobody here waits for
		}
		return set, nil
	}
	if err := i.wait(ctx, i.begin()); err != nil {
		return nil, err
	}
	set = i.usable()
	if set != nil && set.keys[kid] != nil {
		return set, nil
	}
	return nil, i.missing(set, kid)
}

// usable returns the keys if they are not too old.
func (i *Issuer) usable() *keySet {
	if set := i.keys.Load(); set != nil && time.Since(set.read) <= i.keep {
		return set
	}
	return nil
}

// missing says why there is no such key: the issuer has none, or cannot be asked.
func (i *Issuer) missing(set *keySet, kid string) *engine.Error {
	i.mu.Lock()
	failure, begun := i.failure, i.begun
	i.mu.Unlock()
	detail := fmt.Sprintf("Keys of %s are read at most once in %s, and were last asked for %s ago.", i, pause, time.Since(begun).Round(time.Second))
	switch old := i.keys.Load(); {
	case set == nil && old != nil:
		return &engine.Error{
			Code: engine.CodeUnavailable, Rule: "entra.stale",
			Message: "The token cannot be judged: the keys of its issuer are too old, and it cannot be asked for new ones.",
			Detail:  fmt.Sprintf("They were read at %s and are kept for %s. %s", old.read.UTC().Format(time.RFC3339), i.keep, detail), Err: failure,
		}
	case set == nil || failure != nil:
		return &engine.Error{
			Code: engine.CodeUnavailable, Rule: "entra.keys",
			Message: "The token cannot be judged: its issuer cannot be asked for the key that it names.",
			Detail:  detail, Err: failure,
		}
	}
	e := refuse("entra.kid", "The token names the key %s, which its issuer %s does not have.", excerpt(kid), i)
	e.Detail = fmt.Sprintf("It has %d keys: %s. %s", len(set.ids), excerpts(set.ids), detail)
	return e
}

// begin starts a reading if it is time for one, and returns what is closed at the
// end of the one under way; nil if there is none.
func (i *Issuer) begin() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.done != nil || i.closed || i.attempts > 0 && time.Since(i.begun) < pause {
		return i.done
	}
	i.begun = time.Now()
	i.attempts++
	done := make(chan struct{})
	i.done = done
	i.readings.Go(func() { // ends with life, or after its own patience
		ctx, cancel := context.WithTimeout(i.life, patience)
		defer cancel()
		set, err := i.read(ctx)
		i.finish(set, err)
		close(done)
	})
	return done
}

// wait returns once done is closed; at once if it is nil.
func (i *Issuer) wait(ctx context.Context, done <-chan struct{}) error {
	if done == nil {
		return nil
	}
	i.mu.Lock()
	full := i.waiting >= maxWaiting
	if !full {
		i.waiting++
	}
	i.mu.Unlock()
	if full {
		return &engine.Error{
			Code: engine.CodeUnavailable, Rule: "entra.keys",
			Message: "The token cannot be judged: its issuer has been asked and has not answered yet.",
			Detail:  fmt.Sprintf("%d callers wait for that already.", maxWaiting),
		}
	}
	defer func() {
		i.mu.Lock()
		i.waiting--
		i.mu.Unlock()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return &engine.Error{
			Code: engine.CodeUnavailable, Rule: "entra.keys",
			Message: "The token cannot be judged: its issuer did not answer in time.", Err: context.Cause(ctx),
		}
	}
}

// finish takes note of what a reading brought.
func (i *Issuer) finish(set *keySet, err error) {
	old := i.keys.Load()
	if err == nil {
		set.read = time.Now()
		i.keys.Store(set)
	}
	i.mu.Lock()
	before := i.failure
	i.failure, i.done = err, nil
	if err != nil {
		i.failures++
	}
	closed := i.closed
	i.mu.Unlock()
	switch {
	case closed:
	case err != nil && old != nil:
		i.log.Error("the issuer's keys cannot be read; the last ones stay in use", "issuer", i.String(), "read", old.read, "until", old.read.Add(i.keep), "error", err)
	case err != nil:
		i.log.Error("the issuer's keys cannot be read; its tokens cannot be judged until they are", "issuer", i.String(), "error", err)
	case old == nil || before != nil || !slices.Equal(old.ids, set.ids):
		i.log.Info("the issuer's keys were read", "issuer", i.String(), "keys", set.ids)
	}
}

// check returns nil if a proven token is from this issuer.
func (i *Issuer) check(c *claims, set *keySet) *engine.Error {
	if i.tenant == "" {
		if c.issuer != set.issuer {
			return refuse("entra.issuer", "The token was issued by %s; only %s is accepted here.", excerpt(c.issuer), set.issuer)
		}
		return nil
	}
	version := "1.0"
	switch c.issuer {
	case i.v1:
	case i.v2:
		version = "2.0"
	default:
		return refuse("entra.issuer", "The token was issued by %s; only %s and %s are accepted here.", excerpt(c.issuer), i.v1, i.v2)
	}
	if !strings.EqualFold(c.tenant, i.tenant) {
		return refuse("entra.tenant", "The token is of the tenant %s; here it must be of %s.", excerpt(c.tenant), i.tenant)
	}
	if c.version != "" && c.version != version {
		return refuse("entra.version", "The token is of version %s, and its issuer %s is that of version %s.", excerpt(c.version), c.issuer, version)
	}
	return nil
}
