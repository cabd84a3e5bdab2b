package mqtt

import (
	"errors"

	"github.com/fanfare/fanfare/engine"
)

// The reason codes of MQTT 5.0 that this door sends or looks at (section 2.4).
const (
	codeSuccess             = 0x00
	codeWithWill            = 0x04
	codeNoSubscribers       = 0x10
	codeNoSubscription      = 0x11
	codeUnspecified         = 0x80
	codeMalformed           = 0x81
	codeProtocolError       = 0x82
	codeImplementation      = 0x83
	codeUnsupportedVersion  = 0x84
	codeClientID            = 0x85
	codeBadCredentials      = 0x86
	codeNotAuthorized       = 0x87
	codeUnavailable         = 0x88
	codeShuttingDown        = 0x8b
	codeAuthMethod          = 0x8c
	codeKeepAlive           = 0x8d
	codeTakenOver           = 0x8e
	codeFilterInvalid       = 0x8f
	codeTopicInvalid        = 0x90
	codeIDInUse             = 0x91
	codeIDNotFound          = 0x92
	codeReceiveMax          = 0x93
	codeTopicAlias          = 0x94
	codePacketTooLarge      = 0x95
	codeRateTooHigh         = 0x96
	codeQuotaExceeded       = 0x97
	codeAdministrative      = 0x98
	codeFormatInvalid       = 0x99
	codeRetain              = 0x9a
	codeSharedSubscriptions = 0x9e
	codeWildcards           = 0xa2
)

// The return codes of a CONNACK in MQTT 3.1.1 (section 3.2.2.3).
const (
	returnVersion      = 1
	returnClientID     = 2
	returnUnavailable  = 3
	returnCredentials  = 4
	returnUnauthorized = 5
)

// returnCodes says reason codes of a CONNACK in the words of 3.1.1. Others are
// returnUnavailable: that version has no word for them.
var returnCodes = map[byte]byte{
	codeUnsupportedVersion: returnVersion,
	codeClientID:           returnClientID,
	codeBadCredentials:     returnCredentials,
	codeNotAuthorized:      returnUnauthorized,
}

// connackCodes are the reason codes that a CONNACK of 5.0 may refuse with (table 3-1).
var connackCodes = func() map[int]bool {
	set := map[int]bool{}
	for _, c := range []int{
		0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c,
		0x90, 0x95, 0x97, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
	} {
		set[c] = true
	}
	return set
}()

// sent says which reason codes a client may put into which packet (tables 3-4 to 3-7
// and 3-10 of 5.0; of the last one those that a client sends).
var sent = [16]map[byte]bool{
	typePuback:  set(append(answers, codeSuccess, codeNoSubscribers)...),
	typePubrec:  set(append(answers, codeSuccess, codeNoSubscribers)...),
	typePubrel:  set(codeSuccess, codeIDNotFound),
	typePubcomp: set(codeSuccess, codeIDNotFound),
	typeDisconnect: set(codeSuccess, codeWithWill, codeUnspecified, codeMalformed, codeProtocolError, codeImplementation,
		codeTopicInvalid, codeReceiveMax, codeTopicAlias, codePacketTooLarge, codeRateTooHigh, codeQuotaExceeded,
		codeAdministrative, codeFormatInvalid),
}

// answers are the reason codes by which a PUBACK or a PUBREC refuses.
var answers = []byte{
	codeUnspecified, codeImplementation, codeNotAuthorized, codeTopicInvalid, codeIDInUse, codeQuotaExceeded, codeFormatInvalid,
}

func set(codes ...byte) map[byte]bool {
	m := make(map[byte]bool, len(codes))
	for _, c := range codes {
		m[c] = true
	}
	return m
}

// closeReason is the reason code for a client whose WebSocket messages end the
// connection with code.
func closeReason(code engine.CloseCode) byte {
	if code == engine.CloseTooLarge {
		return codePacketTooLarge
	}
	return codeMalformed
}

// filterCode is what a SUBACK or an UNSUBACK says about a request that failed.
func filterCode(kind byte, err error) byte {
	switch engine.CodeOf(err) {
	case engine.CodeForbidden:
		return codeNotAuthorized
	case engine.CodeInvalid:
		return codeFilterInvalid
	case engine.CodeTooLarge, engine.CodeUnavailable:
		if kind == typeSubscribe {
			return codeQuotaExceeded
		}
		return codeImplementation // an UNSUBACK has no closer word
	}
	return codeUnspecified
}

// requestCode is what a PUBACK or a PUBREC says about a request that failed.
func requestCode(err error) byte {
	switch engine.CodeOf(err) {
	case engine.CodeForbidden:
		return codeNotAuthorized
	case engine.CodeTooLarge, engine.CodeUnavailable:
		return codeQuotaExceeded
	case engine.CodeInvalid:
		return codeTopicInvalid
	}
	return codeUnspecified
}

// partingCode is what a DISCONNECT says about the end of a connection that the
// engine ended. ok is false for an end that was the client's wish, or that the
// client has been told of.
func partingCode(m *engine.Message) (code byte, ok bool) {
	switch m.Reason {
	case engine.EndServer:
		return codeAdministrative, true
	case engine.EndShutdown:
		return codeShuttingDown, true
	case engine.EndTakenOver:
		return codeTakenOver, true
	case engine.EndPingTimeout:
		return codeKeepAlive, true
	case engine.EndSlow, engine.EndOverload, engine.EndUnfinished:
		return codeQuotaExceeded, true
	case engine.EndControlRate:
		return codeRateTooHigh, true
	case engine.EndClient, engine.EndLost, engine.EndProtocol, "":
		return 0, false
	}
	return codeUnspecified, true
}

// admitCode is what a CONNACK says about a client that the hub did not admit: what
// the event handler wants it to say, or what its status comes to (as Azure's
// library for handlers has it), or what the engine's code comes to.
func admitCode(version byte, err error) (code byte, a *Answer) {
	var e *engine.Error
	if !errors.As(err, &e) {
		e = &engine.Error{}
	}
	a, _ = e.Reply.(*Answer)
	if a == nil {
		a = &Answer{}
	}
	switch {
	case a.Code != 0:
		code = codeUnspecified
		switch {
		case version == version5 && connackCodes[a.Code]:
			code = byte(a.Code)
		case version == version311 && a.Code >= returnVersion && a.Code <= returnUnauthorized:
			return byte(a.Code), a
		}
	case e.Status == 400:
		code = codeBadCredentials
	case e.Status == 401, e.Code == engine.CodeUnauthenticated, e.Code == engine.CodeForbidden:
		code = codeNotAuthorized
	case e.Code == engine.CodeConflict:
		code = codeClientID
	case e.Code == engine.CodeUnavailable, e.Code == engine.CodeClosed, e.Code == engine.CodeTimeout:
		code = codeUnavailable
	default:
		code = codeUnspecified
	}
	if version == version311 {
		return returnCode(code), a
	}
	return code, a
}

// returnCode says a reason code in the words of 3.1.1.
func returnCode(code byte) byte {
	if c, ok := returnCodes[code]; ok {
		return c
	}
	return returnUnavailable
}
