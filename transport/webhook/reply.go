package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
)

// maxReplyBody bounds the body of a reply, as Azure's runtime does.
const maxReplyBody = 16 << 20

// answer is a complete reply of a server.
type answer struct {
	status int
	header http.Header
	body   []byte
	url    *url.URL
	at     time.Time
}

func (a *answer) ok() bool { return a.status >= 200 && a.status < 300 }

// change reads what a successful reply attaches to the connection. A reply to
// a notification cannot set the state (Azure Web PubSub, CloudEvents reference,
// "connected"), but its cookies count.
func (a *answer) change(withState bool) (change, error) {
	ch := change{cookies: readCookies(a.header, a.url, a.at), at: a.at}
	if values := a.header[replyState]; withState && len(values) > 0 {
		s := values[len(values)-1]
		if len(s) > maxState || !isPrintable(s) {
			return change{}, badReply("The event handler set a connection state that cannot be kept.",
				fmt.Sprintf("ce-connectionState has %d bytes; at most %d of printable ASCII would pass", len(s), maxState), nil)
		}
		ch.state = &s
	}
	return ch, nil
}

// metadata reads the metadata of a successful reply: of several headers of a
// name the last counts, and of that what follows its last comma.
func (a *answer) metadata() (engine.Metadata, error) {
	var m engine.Metadata
	for name, values := range a.header {
		if !hasPrefixFold(name, hdrMetadata) || len(name) == len(hdrMetadata) || len(values) == 0 {
			continue
		}
		v := values[len(values)-1]
		v = strings.TrimSpace(v[strings.LastIndexByte(v, ',')+1:])
		if !utf8.ValidString(v) {
			return nil, badReply("The event handler replied with metadata that is not valid text.", "the value of "+strings.ToLower(name)+" is not UTF-8", nil)
		}
		if m == nil {
			m = engine.Metadata{}
		}
		m[strings.ToLower(name[len(hdrMetadata):])] = v
	}
	return m, nil
}

// message reads the message for the client out of a successful reply to a user
// event. It returns nil for none.
func (a *answer) message(m engine.Metadata) (*engine.Payload, error) {
	if len(a.body) == 0 {
		if len(m) == 0 {
			return nil, nil
		}
		// Metadata needs a message to travel with; its type is text, whatever Content-Type says.
		return &engine.Payload{Type: engine.Text, Data: []byte{}}, nil
	}
	p := &engine.Payload{Data: a.body}
	media := mediaType(a.header)
	switch media {
	case "", "application/octet-stream":
		p.Type = engine.Binary
	case "text/plain":
		p.Type = engine.Text
		if !utf8.Valid(p.Data) {
			return nil, badReply("The event handler replied with text that is not UTF-8.", "only UTF-8 can be sent to clients as text", nil)
		}
	case "application/json":
		p.Type = engine.JSON
		p.Data = bytes.TrimPrefix(p.Data, utf8BOM)
		if !utf8.Valid(p.Data) || !json.Valid(p.Data) {
			// It would stand unquoted inside a frame of ours and make that invalid.
			return nil, badReply("The event handler replied with a body that is not JSON although its Content-Type says so.", "", nil)
		}
	case "application/x-protobuf":
		p.Type = engine.Protobuf
	default:
		return nil, badReply("The event handler replied with a Content-Type that is not supported.",
			fmt.Sprintf("it is %.64q; text/plain, application/json, application/octet-stream, application/x-protobuf or none would pass", media), nil)
	}
	return p, nil
}

var utf8BOM = []byte("\ufeff")

// mediaType is the Content-Type without parameters, in lower case; empty for none.
func mediaType(h http.Header) string {
	values := h[replyContentType]
	if len(values) == 0 {
		return ""
	}
	media, _, _ := strings.Cut(values[0], ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// decodeConnect reads the body of a successful reply to connect; its
// Content-Type does not matter. It returns a reply without a state, and nil
// for a body that says nothing. (Azure Web PubSub, CloudEvents reference, "connect".)
func decodeConnect(body []byte) (*engine.ConnectReply, error) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, utf8BOM))
	if len(body) == 0 || string(body) == "null" {
		return nil, nil
	}
	if body[0] != '{' {
		return nil, badReply("The event handler's reply to connect is not a JSON object.", "an object, null or an empty body would pass", nil)
	}
	var v struct {
		UserID      *string   `json:"userId"`
		Roles       []*string `json:"roles"`
		Groups      []*string `json:"groups"`
		Subprotocol string    `json:"subprotocol"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, badReply("The event handler's reply to connect is not the JSON object that it should be.", "", err)
	}
	r := &engine.ConnectReply{Subprotocol: v.Subprotocol}
	if !isToken(v.Subprotocol) {
		return nil, badReply("The event handler chose a subprotocol that is not valid.", "a name of HTTP token characters would pass", nil)
	}
	if v.UserID != nil {
		id := engine.UserID("")
		if *v.UserID != "" {
			var err error
			if id, err = engine.ParseUserID(*v.UserID); err != nil {
				return nil, badReply("The event handler chose a user id that is not valid.", "", err)
			}
		}
		r.UserID = &id
	}
	if v.Roles != nil {
		r.Roles = make([]string, len(v.Roles)) // empty and not nil removes all
		for i, role := range v.Roles {
			if role == nil {
				return nil, badReply("The event handler's reply to connect has null among the roles.", "strings would pass", nil)
			}
			r.Roles[i] = *role
		}
	}
	for _, name := range v.Groups {
		if name == nil {
			return nil, badReply("The event handler's reply to connect has null among the groups.", "names of groups would pass", nil)
		}
		g, err := engine.ParseGroupName(*name)
		if err != nil {
			return nil, badReply("The event handler's reply to connect has an invalid name among the groups.", "", err)
		}
		r.Groups = append(r.Groups, g)
	}
	return r, nil
}

func badReply(message, detail string, err error) *engine.Error {
	return &engine.Error{Code: engine.CodeInternal, Rule: "event.reply", Message: message, Detail: detail, Err: err}
}
