package engine

import (
	"errors"
	"fmt"
	"strconv"
)

// Code says what kind of failure an [Error] is. Every door has one table from
// codes to its own words (ack names, HTTP statuses, close codes).
type Code uint8

// The codes.
const (
	// CodeInternal is a failure of ours, or of an event handler.
	CodeInternal Code = iota
	// CodeInvalid is input that breaks a rule.
	CodeInvalid
	// CodeUnauthenticated is a caller whose credentials are missing or do not hold.
	CodeUnauthenticated
	// CodeForbidden is a known caller who lacks the permission.
	CodeForbidden
	// CodeNotFound is a target that does not exist.
	CodeNotFound
	// CodeDuplicate is a request whose ack id has already succeeded.
	CodeDuplicate
	// CodeConflict is a request that the target's present state rules out.
	CodeConflict
	// CodeTooLarge is input over a size or count limit.
	CodeTooLarge
	// CodeUnavailable is a refusal for want of room or time: overload, draining, no quorum.
	CodeUnavailable
	// CodeUnsupported is a request for something this build does not have.
	CodeUnsupported
	// CodeClosed is a use of a connection, hub or engine that has ended.
	CodeClosed
	// CodeTimeout is a call that took longer than allowed.
	CodeTimeout
)

var codeNames = [...]string{
	CodeInternal: "internal", CodeInvalid: "invalid", CodeUnauthenticated: "unauthenticated",
	CodeForbidden: "forbidden", CodeNotFound: "not found", CodeDuplicate: "duplicate",
	CodeConflict: "conflict", CodeTooLarge: "too large", CodeUnavailable: "unavailable",
	CodeUnsupported: "unsupported", CodeClosed: "closed", CodeTimeout: "timeout",
}

// String returns the code's name in lower case.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "code " + strconv.Itoa(int(c))
}

// Error is the one error type of the engine and of those who fill its seams.
// A caller is shown Message and Rule; a log gets everything. Neither Message
// nor Detail ever holds a secret.
type Error struct {
	Code Code
	// Rule names the rule that refused, in dotted lower case: "token.audience".
	Rule string
	// Message is one sentence that is safe to show to whoever asked.
	Message string
	// Detail is what the rule saw and what would have passed. For the log only.
	Detail string
	// Target names the input at fault, where one is: "filter", "group".
	Target string
	// Status is an event handler's own status, passed through unread; 0 where
	// no handler answered.
	Status int
	// Reply is an event handler's own words about the failure, opaque to the
	// engine; nil where there are none.
	Reply any
	// Err is the cause, if there is one.
	Err error
}

// Error returns the message, the rule and the cause, on one line.
func (e *Error) Error() string {
	s := e.Message
	if s == "" {
		s = e.Code.String()
	}
	if e.Rule != "" {
		s += " [" + e.Rule + "]"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the first *Error in err's chain, and CodeInternal
// where there is none. It is meaningless for a nil error.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// Errorf makes an *Error with a formatted message.
func Errorf(code Code, rule, format string, args ...any) *Error {
	return &Error{Code: code, Rule: rule, Message: fmt.Sprintf(format, args...)}
}
