package identity

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// The scopes: what a token is good for, in the service's words.
const (
	ScopeChat            = "chat"
	ScopeChatJoin        = "chat.join"
	ScopeChatJoinLimited = "chat.join.limited"
	ScopeVoIP            = "voip"
	ScopeVoIPJoin        = "voip.join"
)

var scopes = []string{ScopeChat, ScopeChatJoin, ScopeChatJoinLimited, ScopeVoIP, ScopeVoIPJoin}

// Bounds of a token's life.
const (
	MinLifetime     = time.Hour
	MaxLifetime     = 24 * time.Hour
	DefaultLifetime = MaxLifetime

	// leastEnd is how far ahead an end is at least that somebody else has set.
	leastEnd = time.Minute
)

// foldScopes returns the scopes without repetition.
func foldScopes(list []string) ([]string, error) {
	if len(list) == 0 {
		return nil, invalid("user.scopes", "scopes", "No scope was given: expected some of %s.", strings.Join(scopes, ", "))
	}
	folded := make([]string, 0, len(scopes))
	for _, s := range list {
		if !slices.Contains(scopes, s) {
			return nil, invalid("user.scopes", "scopes", "The scope %s is unknown: expected some of %s.", excerpt(s), strings.Join(scopes, ", "))
		}
		if !slices.Contains(folded, s) {
			folded = append(folded, s)
		}
	}
	return folded, nil
}

func checkLifetime(d time.Duration) (time.Duration, error) {
	if d == 0 {
		return DefaultLifetime, nil
	}
	if d < MinLifetime || d > MaxLifetime || d%time.Minute != 0 {
		return 0, invalid("user.lifetime", "expiresInMinutes", "A token cannot live for %s: expected whole minutes, %d to %d.",
			d, int(MinLifetime.Minutes()), int(MaxLifetime.Minutes()))
	}
	return d, nil
}

func checkEnd(now, end time.Time) error {
	if d := end.Sub(now); d < leastEnd || d > MaxLifetime {
		return invalid("user.lifetime", "expiresOn", "A token cannot end at %s: expected a time between %s and %s.",
			end.UTC().Format(time.RFC3339), now.Add(leastEnd).UTC().Format(time.RFC3339), now.Add(MaxLifetime).UTC().Format(time.RFC3339))
	}
	return nil
}

func invalid(rule, target, format string, args ...any) *engine.Error {
	return &engine.Error{Code: engine.CodeInvalid, Rule: rule, Target: target, Message: fmt.Sprintf(format, args...)}
}
