// Package keyvault reads secrets from Azure Key Vault, for whoever has them in
// settings by reference, and keeps them.
//
//   - [Secrets] reads and keeps. It fills webhook.SecretSource.
//   - [URI] names a secret, of one version or of the one that is current.
//   - [Hosts] are the vaults that may be asked.
//
// # Promises
//
// A secret of a version is read once, and again after [Secrets.Reload]. One
// without a version is read again every 5 minutes of use, beside its use; one that
// was not looked at for an hour is waited for. While a vault cannot be reached or
// refuses, the last value stays in use. Without a value there is an error, never
// an empty text. No error and no line of the log holds a secret.
//
// Vaults are asked over https alone, through azsecrets, with a token of the
// service's own identity. They are Azure's own, or hosts that were allowed by name.
package keyvault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/fanfare/fanfare/authn/internal/calls"
	"github.com/fanfare/fanfare/authn/internal/kept"
)

// TokenSource supplies bearer tokens for a resource; managed.Tokens is one. It is
// called concurrently and should answer from a cache.
type TokenSource interface {
	Token(ctx context.Context, resource string) (string, error)
}

// Bounds of [Secrets].
const (
	maxSecrets = 1024
	maxVaults  = 256
	maxSecret  = 25 << 10 // what Azure Key Vault takes
	maxReply   = 256 << 10

	fetchTime = 45 * time.Second
	// patience is how long a caller waits for a fetch. A dead event handler holds
	// an event about as long.
	patience = 10 * time.Second

	// The life of a value without a version.
	dueAfter   = 5 * time.Minute
	staleAfter = time.Hour
	// doubtEvery is how often a doubt makes a secret read again, at most.
	doubtEvery = 30 * time.Second
)

// Options are the knobs of [Secrets]. Nil and zero mean the defaults.
type Options struct {
	// Hosts are the vaults that may be asked. Default: Azure's own.
	Hosts *Hosts
	// Transport carries the requests. Default: a client that follows no redirects,
	// bounds what it reads, and uses the proxy of the environment.
	Transport policy.Transporter
	// Logger gets a line when a secret cannot be read again that is still in use.
	// All other failures are returned. Default: discard.
	Logger *slog.Logger
}

// Secrets reads secrets and keeps them. It is safe for concurrent use and must be
// closed.
type Secrets struct {
	// Fixed at birth.
	tokens    TokenSource
	hosts     *Hosts
	transport policy.Transporter
	cache     *kept.Cache[string]

	mu     sync.Mutex // guards the rest
	vaults map[string]*azsecrets.Client
}

// New returns secrets that are read with tokens of the identity of tokens.
func New(tokens TokenSource, o *Options) *Secrets {
	if o == nil {
		o = &Options{}
	}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Secrets{tokens: tokens, hosts: o.Hosts, transport: o.Transport, vaults: map[string]*azsecrets.Client{}}
	if s.transport == nil {
		s.transport = calls.NewClient(calls.Options{Proxy: http.ProxyFromEnvironment, MaxBody: maxReply})
	}
	s.cache = kept.New(s.fetch, kept.Options{
		Max: maxSecrets, Timeout: fetchTime, Patience: patience,
		Failed: func(uri string, err error) {
			log.Warn("a secret could not be read again; its last value stays in use", "secret", uri, "error", err)
		},
	})
	return s
}

// Secret returns the value of the secret at a URI: at once if it is at hand, else
// it waits, at most 10 seconds. After a failure it returns that failure at once
// for a while, 1 second first and a minute at most.
func (s *Secrets) Secret(ctx context.Context, uri string) (string, error) {
	u, err := ParseURI(uri)
	if err == nil {
		err = s.hosts.Check(u)
	}
	if err != nil {
		return "", err
	}
	value, err := s.cache.Get(ctx, u.String())
	if err != nil {
		return "", fmt.Errorf("keyvault: no value of %s: %w", u, err)
	}
	return value, nil
}

// Doubt says that the value of a secret did not do, as when an event handler
// answers 401 or 403: it may have been rotated. It is read again, beside its use
// and every 30 seconds at most. What cannot change, or is not kept, is not.
func (s *Secrets) Doubt(uri string) {
	if u, err := ParseURI(uri); err == nil && !u.Versioned() {
		s.cache.Doubt(u.String(), doubtEvery)
	}
}

// Reload makes every secret be read again before its next use, since the settings
// were. While that fails the last value stays in use.
func (s *Secrets) Reload() { s.cache.DoubtAll() }

// Stats are the counters of [Secrets]: first a gauge, then totals since they were made.
type Stats struct {
	Kept     int64 // secrets at hand
	Fetches  int64
	Failures int64 // of these, how many failed
}

// Stats returns a snapshot of the counters.
func (s *Secrets) Stats() Stats { return Stats(s.cache.Stats()) }

// Close ends what is under way and waits for it. It always returns nil and may be
// called again.
func (s *Secrets) Close() error {
	s.cache.Close()
	return nil
}

func (s *Secrets) fetch(ctx context.Context, uri string) (kept.Value[string], error) {
	u, err := ParseURI(uri)
	if err != nil {
		return kept.Value[string]{}, err
	}
	vault, err := s.vault(u)
	if err != nil {
		return kept.Value[string]{}, err
	}
	var resp *http.Response
	// Without a version the library's path ends with a slash: a reference without
	// it is said to have stayed on an old version.
	got, err := vault.GetSecret(policy.WithCaptureResponse(ctx, &resp), u.name, u.version, nil)
	switch {
	case err != nil:
		return kept.Value[string]{}, reason(err, resp)
	case got.Value == nil || *got.Value == "":
		return kept.Value[string]{}, errors.New("the vault answered without a value")
	case len(*got.Value) > maxSecret:
		return kept.Value[string]{}, fmt.Errorf("the value has %d bytes; at most %d would pass", len(*got.Value), maxSecret)
	}
	v := kept.Value[string]{Value: *got.Value}
	if !u.Versioned() {
		now := time.Now()
		v.Due, v.Stale = now.Add(dueAfter), now.Add(staleAfter)
	}
	return v, nil
}

// vault returns the client of a vault, which remembers its challenge.
func (s *Secrets) vault(u URI) (*azsecrets.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.vaults[u.host]; c != nil {
		return c, nil
	}
	c, err := azsecrets.NewClient("https://"+u.host, credential{s.tokens}, &azsecrets.ClientOptions{
		ClientOptions: azcore.ClientOptions{
			Transport: &guard{s.transport, u},
			Retry:     policy.RetryOptions{RetryDelay: 500 * time.Millisecond, MaxRetryDelay: 5 * time.Second, TryTimeout: 10 * time.Second},
		},
		DisableChallengeResourceVerification: !u.Azure(), // the guard's matter
	})
	if err != nil {
		return nil, err
	}
	if len(s.vaults) >= maxVaults {
		clear(s.vaults) // one challenge more for each
	}
	s.vaults[u.host] = c
	return c, nil
}

// credential makes the library ask tokens for each request.
type credential struct{ tokens TokenSource }

var _ azcore.TokenCredential = credential{}

// GetToken implements azcore.TokenCredential. Its tokens end at once for the
// library, which would keep them; their source knows better how long they last.
func (c credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if len(o.Scopes) != 1 {
		return azcore.AccessToken{}, errors.New("not one scope")
	}
	token, err := c.tokens.Token(ctx, strings.TrimSuffix(o.Scopes[0], "/.default"))
	return azcore.AccessToken{Token: token, ExpiresOn: time.Now()}, err
}

// reason says on one line why there is no secret. The library's own errors dump
// replies.
func reason(err error, resp *http.Response) error {
	var failed *azcore.ResponseError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &failed) && failed.RawResponse != nil:
		return refusal(failed.RawResponse)
	case resp != nil && resp.StatusCode == http.StatusOK:
		return errors.New("the vault answered 200 with something that is no secret")
	}
	return errors.New(calls.Line(err.Error()))
}

// refusal quotes an answer of another status than 200 (Azure Key Vault REST API,
// "common error response").
func refusal(r *http.Response) error {
	text := fmt.Sprintf("the vault answered %d", r.StatusCode)
	body, err := runtime.Payload(r)
	if err != nil {
		return errors.New(text)
	}
	var said struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Inner   struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
	}
	// One without these members says nothing that we could repeat.
	_ = json.Unmarshal(body, &said)
	for _, s := range []string{said.Error.Code, said.Error.Inner.Code, said.Error.Message} {
		if s != "" {
			text += ": " + calls.Line(s)
		}
	}
	return errors.New(text)
}
