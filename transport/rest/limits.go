package rest

import (
	"math"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/fanfare/fanfare/engine"
)

// IdentityLimits are how many requests of one kind are carried out at once, and again in
// each 30 seconds; what is over is answered with 429. 0 means the service's own number,
// less than 0 no limit. Callers without credentials do not count; requests that are
// refused for what their body says do.
type IdentityLimits struct {
	Create          int // users without a token; default 1000
	CreateWithToken int // default 1000
	Issue           int // default 1000
	Delete          int // default 500
	Revoke          int // default 500
	Exchange        int // for Teams users, and as much for the Teams extension and for Entra users; default 500
	Assign          int // all operations on assignments, for which the service names no number; default 500
}

// limitWindow is the time that the numbers are about.
const limitWindow = 30 * time.Second

// limit is a kind of requests that count together.
type limit int

const (
	limitOfBody limit = iota // the body says which, so the operation asks
	limitCreate
	limitCreateWithToken
	limitIssue
	limitDelete
	limitRevoke
	limitTeamsUser
	limitTeamsExtension
	limitEntra
	limitAssign
)

// limiters are buckets, by kind, that hold a token for each request that may be carried out.
type limiters [limitAssign + 1]*rate.Limiter

func (o *IdentityLimits) limiters() limiters {
	return limiters{
		limitCreate:          newLimiter(o.Create, 1000),
		limitCreateWithToken: newLimiter(o.CreateWithToken, 1000),
		limitIssue:           newLimiter(o.Issue, 1000),
		limitDelete:          newLimiter(o.Delete, 500),
		limitRevoke:          newLimiter(o.Revoke, 500),
		limitTeamsUser:       newLimiter(o.Exchange, 500),
		limitTeamsExtension:  newLimiter(o.Exchange, 500),
		limitEntra:           newLimiter(o.Exchange, 500),
		limitAssign:          newLimiter(o.Assign, 500),
	}
}

func newLimiter(n, def int) *rate.Limiter {
	switch {
	case n < 0:
		return rate.NewLimiter(rate.Inf, 0)
	case n == 0:
		n = def
	}
	return rate.NewLimiter(rate.Limit(float64(n)/limitWindow.Seconds()), n)
}

// take counts a request of a kind, and refuses it if there have been too many.
func (c *identityCall) take(kind limit) error {
	l := c.h.limits[kind]
	if l.Allow() {
		return nil
	}
	// The time until one request more is allowed, at most the window. SDKs wait as long, and
	// then send the same signature again, which must not have gone stale.
	wait := max(1, int(math.Ceil((1-l.Tokens())/float64(l.Limit()))))
	return &refusal{
		status: http.StatusTooManyRequests, retryAfter: wait,
		err: engine.Errorf(engine.CodeUnavailable, "rest.rate",
			"There were too many requests of the operation %s: %d are allowed in %.0f seconds. One more is in %d.",
			c.op.name, l.Burst(), limitWindow.Seconds(), wait),
	}
}
