package rest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
)

// statuses is what the data plane says for each of the engine's codes. The
// error code is the service's own word for it, where one is known; that of 404
// is the operation's.
var statuses = [...]struct {
	status int
	code   string
}{
	engine.CodeInternal:        {http.StatusInternalServerError, ""},
	engine.CodeInvalid:         {http.StatusBadRequest, "Error.BadRequest"},
	engine.CodeUnauthenticated: {http.StatusUnauthorized, ""},
	engine.CodeForbidden:       {http.StatusForbidden, "Error.Forbidden"},
	engine.CodeNotFound:        {http.StatusNotFound, ""},
	engine.CodeDuplicate:       {http.StatusConflict, ""},
	engine.CodeConflict:        {http.StatusConflict, "Error.Connection.Conflict"},
	engine.CodeTooLarge:        {http.StatusBadRequest, "Error.BadRequest"},
	engine.CodeUnavailable:     {http.StatusServiceUnavailable, ""},
	engine.CodeUnsupported:     {http.StatusNotImplemented, "NotImplemented"},
	engine.CodeClosed:          {http.StatusServiceUnavailable, ""},
	engine.CodeTimeout:         {http.StatusGatewayTimeout, ""},
}

// targets are the inputs that errors name; all others are "Request".
var targets = map[string]bool{
	"api-version": true, "clientType": true, "continuationToken": true, "group": true,
	"maxpagesize": true, "top": true,
}

// statusGone is what the log and the observer see of a caller who did not wait
// for the reply; nobody receives it.
const statusGone = 499

// refusal is an error that HTTP has a word for and the engine has not.
type refusal struct {
	err        *engine.Error
	status     int
	allow      string // the Allow header
	encodings  string // the Accept-Encoding header
	retryAfter int    // the Retry-After header, in seconds

	// Of the identity API: what it says in place of its code for the status, and of
	// the error's message. Empty means these.
	code, words string
}

// setHeader sets the headers that say what would pass.
func (e *refusal) setHeader(h http.Header) {
	if e.allow != "" {
		h.Set("Allow", e.allow)
	}
	if e.encodings != "" {
		h.Set("Accept-Encoding", e.encodings)
	}
}

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

// errorBody is the service's shape of an error ("ErrorDetail").
type errorBody struct {
	Code    string      `json:"code,omitempty"`
	Message string      `json:"message,omitempty"`
	Target  string      `json:"target,omitempty"`
	Details []errorBody `json:"details,omitempty"`
	Inner   *innerError `json:"inner,omitempty"`
}

// innerError carries our own name of the rule that refused.
type innerError struct {
	Code string `json:"code"`
}

// asError returns what of err a caller may be told.
func asError(err error) *engine.Error {
	var e *engine.Error
	if !errors.As(err, &e) {
		// Whatever it says was not written for strangers.
		e = &engine.Error{Code: engine.CodeInternal, Rule: "rest.internal", Message: "The service failed to carry out the request.", Err: err}
	}
	return e
}

// fail answers with err, writes the log's line and returns the status.
func (c *call) fail(err error) int {
	e := asError(err)
	table := statuses[engine.CodeInternal]
	if int(e.Code) < len(statuses) {
		table = statuses[e.Code]
	}
	body := errorBody{Code: table.code, Message: e.Message, Target: e.Target}
	status := table.status

	var r *refusal
	switch {
	case errors.As(err, &r):
		status, body.Code = r.status, ""
		r.setHeader(c.w.Header())
	case c.gone(err):
		status = statusGone
	case e.Code == engine.CodeNotFound:
		body.Code = c.op.missing
	case e.Code == engine.CodeForbidden && c.op != nil:
		// The service's own sentence; why the permission is missing stands beside it.
		body.Message = "Microsoft.SignalRService/WebPubSub/" + string(c.op.action) +
			" permission is required to access this API. Please check your role assignments."
		if e.Message != "" {
			body.Details = []errorBody{{Code: e.Rule, Message: e.Message}}
		}
	}
	switch status {
	case http.StatusBadRequest:
		if !targets[body.Target] {
			body.Target = "Request"
		}
	case http.StatusUnauthorized:
		c.w.Header().Set("WWW-Authenticate", bearerChallenge(e))
	case http.StatusConflict:
		body.Target = "Connection"
	case http.StatusServiceUnavailable:
		c.w.Header().Set("Retry-After", "1") // SDKs wait as long as this says
	}
	if body.Message == "" {
		body.Message = http.StatusText(status)
	}
	if e.Rule != "" {
		body.Inner = &innerError{e.Rule}
	}
	c.refused(status, e)
	if body.Code != "" {
		c.w.Header().Set("X-Ms-Error-Code", body.Code)
	}
	return c.reply(status, body)
}

// bearerChallenge asks for another token, and says why (RFC 6750, section 3).
func bearerChallenge(e *engine.Error) string {
	return `Bearer error="invalid_token", error_description="` + quotable(description(e)) + `"`
}

// description says why credentials were refused, and by which rule.
func description(e *engine.Error) string {
	switch {
	case e.Rule == "":
		return e.Message
	case e.Message == "":
		return e.Rule
	}
	return e.Rule + ": " + e.Message
}

// quotable makes s fit the attributes of a Bearer challenge, which know no
// quote, no backslash and nothing outside printable ASCII (RFC 6750, section 3).
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r == '\\':
			return '/'
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, s)
}

// excerpt quotes the beginning of what a stranger sent.
func excerpt(s string) string {
	const most = 128
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%q... (%d bytes)", s[:cut], len(s))
}
