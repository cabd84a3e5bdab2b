package authn

import (
	"fmt"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// Bearer returns the token of a request's Authorization header. A request
// without one, or with one of another scheme, is [NotMine] with the rule
// token.missing; one with several is refused with token.malformed.
func Bearer(header map[string][]string) (string, error) {
	missing := func(message string) error {
		return NotMine(&engine.Error{Code: engine.CodeUnauthenticated, Rule: "token.missing", Message: message})
	}
	values := header["Authorization"]
	switch {
	case len(values) == 0 || strings.TrimSpace(values[0]) == "":
		return "", missing("The request has no Authorization header: expected Bearer and a token.")
	case len(values) > 1:
		return "", &engine.Error{
			Code: engine.CodeUnauthenticated, Rule: "token.malformed",
			Message: fmt.Sprintf("The request has %d Authorization headers: expected one.", len(values)),
		}
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(values[0]), " ")
	if !strings.EqualFold(word, "Bearer") {
		return "", missing("The Authorization header is not of the scheme Bearer: expected Bearer and a token.")
	}
	text := strings.TrimSpace(rest)
	if text == "" {
		return "", missing("The Authorization header says Bearer and no token: expected one.")
	}
	return text, nil
}
