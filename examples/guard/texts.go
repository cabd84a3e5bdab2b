package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/engine"
)

// Bounds of a request. The first is also how much of a body the guard reads before
// it knows who is calling.
const (
	maxBody       = 64 << 10
	maxRecipients = 100
	maxMessage    = 2048 // characters, the SDKs' own bound
	maxRequestID  = 64   // a GUID has 36
)

// texts is the service. It takes texts as Azure Communication Services does
// (POST /sms), so that the SDKs for that can call it.
type texts struct {
	callers authn.Authorizer
	senders map[string]bool // object ids of Entra ID, in lower case
	outbox  *outbox
	log     *slog.Logger // hears of refusals
}

// Handler is the service behind its guard. Nothing of a request is looked at before
// its caller is known, so there is one place to get that right in.
func (s *texts) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sms", s.send)
	return authn.Guard(s.callers, mux, &authn.GuardOptions{MaxBody: maxBody, Logger: s.log})
}

// maySend decides what the guard leaves to its service: who has an access key may
// send, and of those whom Entra ID has proven the ones that are listed.
func (s *texts) maySend(p engine.Principal) bool {
	switch p.Scheme {
	case "AccessKey":
		return true
	case "Entra":
		return s.senders[strings.ToLower(p.ID)]
	}
	return false
}

// request is the body of POST /sms. The names are the wire's.
type request struct {
	From       string      `json:"from"`
	Message    string      `json:"message"`
	Recipients []recipient `json:"smsRecipients"`
}

type recipient struct {
	To string `json:"to"`
	// RequestID is the same in each repetition of a request, so that a text which
	// was sent, and whose answer was lost, is not sent again.
	RequestID string `json:"repeatabilityRequestId"`
}

// result is what became of one recipient's text.
type result struct {
	To         string `json:"to"`
	MessageID  string `json:"messageId,omitempty"`
	Status     int    `json:"httpStatusCode"`
	Repeatable string `json:"repeatabilityResult,omitempty"`
	Successful bool   `json:"successful"`
	Error      string `json:"errorMessage,omitempty"`
}

func (s *texts) send(w http.ResponseWriter, r *http.Request) {
	caller, _ := authn.Caller(r.Context()) // whom the guard has proven
	if !s.maySend(caller) {
		fail(w, http.StatusForbidden, "Forbidden", fmt.Sprintf("%s may not send texts: expected one of the object ids given with -allow.", caller.ID))
		return
	}
	if r.URL.Query().Get("api-version") == "" {
		fail(w, http.StatusBadRequest, "BadRequest", "The request has no api-version: expected one such as 2021-03-07.")
		return
	}
	var q request
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&q); err != nil {
		fail(w, http.StatusBadRequest, "BadRequest", fmt.Sprintf("The body is not the JSON of a text of at most %d bytes: %v.", maxBody, err))
		return
	}
	if wrong := q.wrong(); wrong != "" {
		fail(w, http.StatusBadRequest, "BadRequest", wrong)
		return
	}
	results := make([]result, 0, len(q.Recipients))
	for _, to := range q.Recipients {
		if !number.MatchString(to.To) {
			results = append(results, result{To: to.To, Status: http.StatusBadRequest, Error: "Expected a number such as +14255550123."})
			continue
		}
		id := s.outbox.send(text{caller.ID, q.From, to.To, q.Message}, to.RequestID)
		results = append(results, result{To: to.To, MessageID: id, Status: http.StatusAccepted, Repeatable: "accepted", Successful: true})
	}
	write(w, http.StatusAccepted, map[string][]result{"value": results})
}

// number is a telephone number of E.164.
var number = regexp.MustCompile(`^\+[1-9][0-9]{1,14}$`)

// wrong says what is wrong with a request as a whole, and what would pass.
func (q *request) wrong() string {
	switch {
	case q.From == "" || len(q.From) > 32:
		return "The text is from nobody: expected a number such as +14255550100, or a name of at most 32 bytes, as from."
	case q.Message == "" || utf8.RuneCountInString(q.Message) > maxMessage:
		return fmt.Sprintf("The text has %d characters: expected 1 to %d as message.", utf8.RuneCountInString(q.Message), maxMessage)
	case len(q.Recipients) == 0 || len(q.Recipients) > maxRecipients:
		return fmt.Sprintf("The text has %d recipients: expected 1 to %d as smsRecipients.", len(q.Recipients), maxRecipients)
	}
	for _, to := range q.Recipients {
		if len(to.RequestID) > maxRequestID {
			return fmt.Sprintf("A repeatabilityRequestId has %d bytes: expected at most %d.", len(to.RequestID), maxRequestID)
		}
	}
	return ""
}

// fail answers in the shape that the guard's refusals have too.
func fail(w http.ResponseWriter, status int, code, message string) {
	write(w, status, map[string]any{"error": map[string]string{"code": code, "message": message}})
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller may have left
}
