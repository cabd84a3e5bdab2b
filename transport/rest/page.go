package rest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// maxContinuationToken is how long a continuation token may be, in characters.
const maxContinuationToken = 2048

// pager makes and reads continuation tokens: the id of the last connection on
// the page before, which need not exist any more, and a code over it, the hub
// and the group.
type pager struct{ key []byte }

// tokenEncoding is strict, so that each token has one spelling. It would skip line
// breaks, which open therefore refuses.
var tokenEncoding = base64.RawURLEncoding.Strict()

func (p pager) sign(hub engine.HubName, group engine.GroupName, after []byte) []byte {
	mac := hmac.New(sha256.New, p.key)
	var n [8]byte
	for _, part := range [...]string{"fanfare rest page 1", string(hub), string(group)} {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		mac.Write(n[:])
		mac.Write([]byte(part))
	}
	mac.Write(after)
	return mac.Sum(nil)
}

// seal returns the token of the page behind after.
func (p pager) seal(hub engine.HubName, group engine.GroupName, after engine.ConnID) string {
	return tokenEncoding.EncodeToString(append(p.sign(hub, group, []byte(after)), after...))
}

// open returns what [pager.seal] was given, and refuses every other text.
func (p pager) open(token string, hub engine.HubName, group engine.GroupName) (engine.ConnID, error) {
	if token == "" || len(token) > maxContinuationToken {
		return "", invalid("continuationToken", "Invalid continuationToken: it has %d characters, not 1 to %d.", len(token), maxContinuationToken)
	}
	b, err := tokenEncoding.DecodeString(token)
	if err != nil || strings.ContainsAny(token, "\r\n") || len(b) <= sha256.Size || !hmac.Equal(b[:sha256.Size], p.sign(hub, group, b[sha256.Size:])) {
		return "", invalid("continuationToken", "Invalid continuationToken: it is not from a page of this hub and group.")
	}
	return engine.ConnID(b[sha256.Size:]), nil
}
