package rest

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/fanfare/fanfare/engine"
)

// identityCodes are the error codes of statuses. "Denied" is the service's; no list of
// the others is published.
var identityCodes = map[int]string{
	http.StatusBadRequest:            "ValidationError",
	http.StatusUnauthorized:          "Denied",
	http.StatusForbidden:             "Forbidden",
	http.StatusNotFound:              "NotFound",
	http.StatusMethodNotAllowed:      "MethodNotAllowed",
	http.StatusConflict:              "Conflict",
	http.StatusRequestEntityTooLarge: "RequestTooLarge",
	http.StatusUnsupportedMediaType:  "UnsupportedMediaType",
	http.StatusTooManyRequests:       "TooManyRequests",
	http.StatusInternalServerError:   "InternalServerError",
	http.StatusNotImplemented:        "NotImplemented",
	http.StatusServiceUnavailable:    "ServiceUnavailable",
	statusGone:                       "ClientClosedRequest",
}

// identityError is the service's shape of an error ("CommunicationError"). Inside the
// inner one are our own name of the rule that refused, and what would have passed.
type identityError struct {
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Target  string         `json:"target,omitempty"`
	Inner   *identityError `json:"innererror,omitempty"`
}

// identityStatus is what the identity API says for one of the engine's codes.
func identityStatus(code engine.Code) int {
	switch {
	case code == engine.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case code == engine.CodeTimeout: // SDKs try again
		return http.StatusServiceUnavailable
	case int(code) < len(statuses):
		return statuses[code].status
	}
	return http.StatusInternalServerError
}

// fail answers with err, writes the log's line and returns the status.
func (c *identityCall) fail(err error) int {
	e := asError(err)
	status := identityStatus(e.Code)
	body := identityError{Message: e.Message, Target: e.Target}
	wait := 1

	var r *refusal
	switch {
	case errors.As(err, &r):
		status, body.Code = r.status, r.code
		wait = max(wait, r.retryAfter)
		if r.words != "" {
			body.Message = r.words
		}
		r.setHeader(c.w.Header())
	case c.gone(err):
		status = statusGone
	case e.Code == engine.CodeNotFound:
		body.Code = c.op.missing
	case e.Rule == "rest."+apiVersion.name:
		body.Code = "UnsupportedApiVersion"
	case e.Code == engine.CodeUnauthenticated:
		// Which of a stranger's credentials failed is said inside.
		body.Message = "Denied by the resource provider."
	}
	switch status {
	case http.StatusUnauthorized:
		c.challenge(e)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		c.w.Header().Set("Retry-After", strconv.Itoa(wait))
	}
	if body.Code == "" {
		body.Code = identityCodes[status]
	}
	if body.Message == "" {
		body.Message = http.StatusText(status)
	}
	if e.Rule != "" {
		body.Inner = &identityError{Code: e.Rule, Message: e.Message}
	}
	c.refused(status, e)
	return c.reply(status, struct {
		Error identityError `json:"error"`
	}{body})
}

// challenge names the schemes by which the operation can be had.
func (c *identityCall) challenge(e *engine.Error) {
	schemes := []string{bearerChallenge(e)}
	if c.op != nil && c.op.action != "" {
		schemes = append(schemes, "HMAC-SHA256")
	}
	c.w.Header()["Www-Authenticate"] = schemes
}
