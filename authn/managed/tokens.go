package managed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	msal "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"

	"github.com/fanfare/fanfare/authn/internal/calls"
	"github.com/fanfare/fanfare/authn/internal/kept"
	"github.com/fanfare/fanfare/engine"
)

// Bounds of [Tokens].
const (
	maxResources = 256
	maxResource  = 1024
	maxToken     = 16 << 10 // what headers that carry it have room for

	// fetchTime bounds a fetch with its retries. The metadata service may be
	// gone (410) for 70 s while it is updated.
	fetchTime = 90 * time.Second
	// patience is how long a caller waits for a fetch. A dead event handler holds
	// an event about as long.
	patience = 10 * time.Second

	// renewAhead is how long before its end a token is renewed: a little later than
	// 5 minutes, up to which the library gives the one that it has. wayThere is how
	// much a token must have left to be handed out.
	renewAhead = 5*time.Minute - 10*time.Second
	wayThere   = 30 * time.Second
)

// Tokens gets bearer tokens of one identity and keeps them, one for each
// resource. It is safe for concurrent use and must be closed.
type Tokens struct {
	credential azcore.TokenCredential
	cache      *kept.Cache[string]
}

// Options are the knobs of [Tokens]. Nil and zero mean the defaults.
type Options struct {
	// Logger gets a line when a token cannot be renewed that is still in use. All
	// other failures are returned. Default: discard.
	Logger *slog.Logger
}

// NewTokens returns tokens that c gets: the credential of an [Identity], or any
// other.
func NewTokens(c azcore.TokenCredential, o *Options) *Tokens {
	log := slog.New(slog.DiscardHandler)
	if o != nil && o.Logger != nil {
		log = o.Logger
	}
	t := &Tokens{credential: c}
	t.cache = kept.New(t.fetch, kept.Options{
		Max: maxResources, Timeout: fetchTime, Patience: patience,
		Failed: func(resource string, err error) {
			log.Warn("a token could not be renewed; the one before it is used until it expires", "resource", resource, "error", err)
		},
	})
	return t
}

// Token returns a token for a resource, an App ID URI or a GUID, that is valid
// for half a minute at least. It fills webhook.TokenSource: it answers at once
// while it has a token, and renews it beside that some 5 minutes before its end,
// or when the issuer suggests. Else it waits, at most 10 seconds. After a failure it
// returns that failure at once for a while, 1 second first and a minute at most.
// No error holds a token.
func (t *Tokens) Token(ctx context.Context, resource string) (string, error) {
	resource = strings.TrimSuffix(resource, "/.default")
	if err := CheckResource(resource); err != nil {
		return "", err
	}
	token, err := t.cache.Get(ctx, resource)
	if err != nil {
		return "", fmt.Errorf("managed: no token for %s: %w", resource, err)
	}
	return token, nil
}

// CheckResource returns nil if a token may be asked for a resource, and else an
// *[engine.Error].
func CheckResource(resource string) error {
	var wrong string
	switch {
	case resource == "":
		wrong = "is empty"
	case len(resource) > maxResource:
		wrong = fmt.Sprintf("has %d bytes", len(resource))
	case strings.ContainsFunc(resource, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		wrong = "holds a blank, or what is not printable ASCII"
	default:
		return nil
	}
	return engine.Errorf(engine.CodeInvalid, "identity.resource",
		"The resource of a token %s; expected an App ID URI such as api://my-handler, or a GUID, of at most %d bytes.", wrong, maxResource)
}

func (t *Tokens) fetch(ctx context.Context, resource string) (kept.Value[string], error) {
	// The scope of a resource. For managed identities the library cuts it again;
	// a slash at the end of a resource is part of it.
	got, err := t.credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
	if err != nil {
		return kept.Value[string]{}, reason(err)
	}
	if len(got.Token) > maxToken {
		return kept.Value[string]{}, fmt.Errorf("the token has %d bytes; at most %d would pass", len(got.Token), maxToken)
	}
	if got.Token == "" {
		return kept.Value[string]{}, errors.New("the token endpoint answered with something that is no token")
	}
	if strings.ContainsFunc(got.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return kept.Value[string]{}, errors.New("the token cannot stand in a header")
	}
	now := time.Now()
	end := got.ExpiresOn.Add(-wayThere)
	due := got.RefreshOn
	if !due.After(now) {
		// Of a token that is short of time, half of what is left.
		due = now.Add(max(got.ExpiresOn.Sub(now)-renewAhead, end.Sub(now)/2))
	}
	return kept.Value[string]{Value: got.Token, Due: due, Stale: end, End: end}, nil
}

// Stats are the counters of [Tokens]: first a gauge, then totals since they were made.
type Stats struct {
	Kept     int64 // tokens at hand
	Fetches  int64
	Failures int64 // of these, how many failed
}

// Stats returns a snapshot of the counters.
func (t *Tokens) Stats() Stats { return Stats(t.cache.Stats()) }

// Close ends what is under way and waits for it. It always returns nil and may be
// called again.
func (t *Tokens) Close() error {
	t.cache.Close()
	return nil
}

// reason says on one line why there is no token. The library's own errors dump
// replies, and a reply that it did not understand may hold a token.
func reason(err error) error {
	var invalid msal.InvalidJsonErr
	var failed *azidentity.AuthenticationFailedError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &invalid):
		return errors.New("the token endpoint answered with something that is no token")
	case errors.As(err, &failed) && failed.RawResponse != nil:
		if s := failed.RawResponse.StatusCode; s >= 200 && s <= 299 {
			return fmt.Errorf("the token endpoint answered %d with something that is no token", s)
		}
		return refusal(failed.RawResponse)
	}
	return errors.New(calls.Line(err.Error()))
}

// refusal quotes an answer of another status than 2xx (RFC 6749 section 5.2).
func refusal(r *http.Response) error {
	text := fmt.Sprintf("the token endpoint answered %d", r.StatusCode)
	body, err := runtime.Payload(r)
	if err != nil {
		return errors.New(text)
	}
	var said struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	// One without these members says nothing that we could repeat.
	_ = json.Unmarshal(body, &said)
	for _, s := range []string{said.Error, said.Description} {
		if s != "" {
			text += ": " + calls.Line(s)
		}
	}
	return errors.New(text)
}
