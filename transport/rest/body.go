package rest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"

	"github.com/fanfare/fanfare/engine"
)

// bodyReader reads a request's body once, no further than its limit.
type bodyReader struct {
	r     *http.Request
	limit int
	rule  string // that a larger one breaks

	read  bool
	bytes []byte
	err   error
}

// all returns the body.
func (b *bodyReader) all() ([]byte, error) {
	if b.read {
		return b.bytes, b.err
	}
	b.read = true
	if b.r.ContentLength > int64(b.limit) {
		b.err = b.tooLarge()
		return nil, b.err
	}
	var p []byte
	var err error
	if n := b.r.ContentLength; n >= 0 {
		// Just the room that it takes: the bytes become the message, and stay as
		// long as it waits anywhere.
		p = make([]byte, n)
		_, err = io.ReadFull(b.r.Body, p)
	} else {
		// One byte more than allowed tells that it is too large.
		p, err = io.ReadAll(io.LimitReader(b.r.Body, int64(b.limit)+1))
		p = bytes.Clone(p)
	}
	switch {
	case err != nil:
		b.err = &engine.Error{
			Code: engine.CodeInvalid, Rule: "rest.body", Err: err,
			Message: "The body ended before it was complete.",
		}
	case len(p) > b.limit:
		b.err = b.tooLarge()
	default:
		b.bytes = p
	}
	return b.bytes, b.err
}

// tooLarge begins with the service's own words.
func (b *bodyReader) tooLarge() error {
	return engine.Errorf(engine.CodeTooLarge, b.rule,
		"Invalid Content-Length header. The body has more than the %d bytes that are allowed.", b.limit)
}

// hash is for authorizers that sign bodies.
func (b *bodyReader) hash() ([]byte, error) {
	p, err := b.all()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(p)
	return sum[:], nil
}

// payload returns the body as a message: its type is the Content-Type's.
func (b *bodyReader) payload() (engine.Payload, error) {
	if b.r.ContentLength > int64(b.limit) {
		return engine.Payload{}, b.tooLarge()
	}
	if err := checkEncoding(b.r.Header); err != nil {
		return engine.Payload{}, err
	}
	t, charset, err := contentType(b.r.Header)
	if err != nil {
		return engine.Payload{}, err
	}
	p, err := b.all()
	if err != nil || t == engine.Binary {
		return engine.Payload{Type: t, Data: p}, err
	}
	if p, err = b.utf8(p, charset); err != nil {
		return engine.Payload{}, err
	}
	if t == engine.JSON && !json.Valid(p) {
		return engine.Payload{}, notJSON()
	}
	return engine.Payload{Type: t, Data: p}, nil
}

// utf8 returns p, which is text in charset, as valid UTF-8.
func (b *bodyReader) utf8(p []byte, charset encoding.Encoding) ([]byte, error) {
	if charset != nil {
		var err error
		if p, err = charset.NewDecoder().Bytes(p); err != nil {
			return nil, engine.Errorf(engine.CodeInvalid, "rest.charset", "The body is not text in the charset that Content-Type names.")
		}
		if len(p) > b.limit { // UTF-8 takes up to three times the room
			return nil, b.tooLarge()
		}
	}
	if !utf8.Valid(p) {
		return nil, notUTF8()
	}
	return p, nil
}

func notUTF8() error {
	return engine.Errorf(engine.CodeInvalid, "rest.charset", "The body is not valid UTF-8.")
}

func notJSON() error {
	return engine.Errorf(engine.CodeInvalid, "rest.json", "The body is not a valid JSON: expected exactly one JSON value.")
}

// checkEncoding refuses a body with a content coding, such as gzip: nothing is decoded
// here, and what is compressed would reach clients so. The reply says which coding
// would pass (RFC 9110, sections 12.5.3 and 15.5.16).
func checkEncoding(header http.Header) error {
	for _, value := range header.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(value, ",") {
			if coding = strings.TrimSpace(coding); coding == "" || strings.EqualFold(coding, "identity") {
				continue
			}
			return &refusal{
				status: http.StatusUnsupportedMediaType, encodings: "identity",
				err: engine.Errorf(engine.CodeInvalid, "rest.contentEncoding",
					"The Content-Encoding %s is not supported: expected a body without one, or identity.", excerpt(coding)),
			}
		}
	}
	return nil
}

// contentType reads the Content-Type header. None means binary. A nil charset is
// UTF-8.
func contentType(header http.Header) (engine.DataType, encoding.Encoding, error) {
	value := header.Get("Content-Type")
	if value == "" {
		return engine.Binary, nil, nil
	}
	media, params, err := mime.ParseMediaType(value)
	if err != nil {
		return 0, nil, unsupportedType(value, "text/plain, application/json or application/octet-stream")
	}
	var t engine.DataType
	switch media {
	case "text/plain":
		t = engine.Text
	case "application/json":
		t = engine.JSON
	case "application/octet-stream":
		return engine.Binary, nil, nil
	default:
		return 0, nil, unsupportedType(value, "text/plain, application/json or application/octet-stream")
	}
	name := params["charset"]
	if name == "" || strings.EqualFold(name, "utf-8") {
		return t, nil, nil
	}
	if strings.EqualFold(name, "utf-16") {
		// The name without an order: a byte order mark says which, and is no text
		// (RFC 2781, section 3.2); without one it is little-endian, as .NET sends it.
		return t, unicode.UTF16(unicode.LittleEndian, unicode.UseBOM), nil
	}
	charset, err := htmlindex.Get(name)
	if err != nil || charset == encoding.Replacement {
		return 0, nil, unsupportedType(value, "a charset that is known, such as utf-8")
	}
	if charset == unicode.UTF8 { // by another of its names; its decoder would mend
		charset = nil
	}
	return t, charset, nil
}

func unsupportedType(got, want string) error {
	return &refusal{
		status: http.StatusUnsupportedMediaType,
		err: engine.Errorf(engine.CodeInvalid, "rest.contentType",
			"The Content-Type %s is not supported: expected %s.", excerpt(got), want),
	}
}

// bulk reads the body of an operation on many groups. An empty filter selects
// every connection.
func (b *bodyReader) bulk() ([]engine.GroupName, string, error) {
	if b.r.ContentLength > int64(b.limit) {
		return nil, "", b.tooLarge()
	}
	if err := checkEncoding(b.r.Header); err != nil {
		return nil, "", err
	}
	value := b.r.Header.Get("Content-Type")
	t, charset, err := contentType(b.r.Header)
	if err != nil {
		return nil, "", err
	}
	if t != engine.JSON {
		return nil, "", unsupportedType(value, "application/json")
	}
	p, err := b.all()
	if err != nil {
		return nil, "", err
	}
	// A decoder of JSON would put U+FFFD into names instead of refusing them.
	if p, err = b.utf8(p, charset); err != nil {
		return nil, "", err
	}
	var in struct {
		Groups []*string `json:"groups"`
		Filter *string   `json:"filter"`
	}
	if err := json.Unmarshal(p, &in); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			what := "body"
			if wrong.Field != "" {
				what += "'s " + wrong.Field
			}
			return nil, "", engine.Errorf(engine.CodeInvalid, "rest.json",
				"The %s is of the type %s, expected {\"groups\":[\"...\"],\"filter\":\"...\"}.", what, wrong.Value)
		}
		return nil, "", notJSON()
	}
	if len(in.Groups) == 0 {
		return nil, "", engine.Errorf(engine.CodeInvalid, "rest.groups", "The body's groups are missing or empty: expected at least one group name.")
	}
	groups := make([]engine.GroupName, len(in.Groups))
	for i, name := range in.Groups {
		if name == nil {
			return nil, "", engine.Errorf(engine.CodeInvalid, "rest.groups", "The body's groups[%d] is null, expected a group name.", i)
		}
		if groups[i], err = engine.ParseGroupName(*name); err != nil {
			return nil, "", err
		}
	}
	if in.Filter == nil || *in.Filter == "" {
		return groups, "", nil
	}
	return groups, *in.Filter, nil // which the engine judges
}
