package identity

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// Scope is what a token is good for, in the service's words.
type Scope string

// The scopes.
const (
	ScopeChat            Scope = "chat"
	ScopeChatJoin        Scope = "chat.join"
	ScopeChatJoinLimited Scope = "chat.join.limited"
	ScopeVoIP            Scope = "voip"
	ScopeVoIPJoin        Scope = "voip.join"
)

var scopes = []Scope{ScopeChat, ScopeChatJoin, ScopeChatJoinLimited, ScopeVoIP, ScopeVoIPJoin}

// Bounds of a token's life.
const (
	MinLifetime     = time.Hour
	MaxLifetime     = 24 * time.Hour
	DefaultLifetime = MaxLifetime
)

// foldScopes returns the scopes without repetition.
func foldScopes(list []Scope) ([]Scope, error) {
	if len(list) == 0 {
		return nil, invalid("user.scopes", "scopes", "No scope was given: expected some of %s.", join(scopes, ", "))
	}
	folded := make([]Scope, 0, len(scopes))
	for _, s := range list {
		if !slices.Contains(scopes, s) {
			return nil, invalid("user.scopes", "scopes", "The scope %s is unknown: expected some of %s.", excerpt(string(s)), join(scopes, ", "))
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

func join(list []Scope, separator string) string {
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = string(s)
	}
	return strings.Join(texts, separator)
}

func invalid(rule, target, format string, args ...any) *engine.Error {
	return &engine.Error{Code: engine.CodeInvalid, Rule: rule, Target: target, Message: fmt.Sprintf(format, args...)}
}
