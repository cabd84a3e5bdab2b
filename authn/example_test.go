package authn_test

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
)

// Devices is an authenticator of one's own: a device shows its serial number and
// a secret that it was given at the factory.
type Devices struct {
	// secrets holds the SHA-256 of each device's secret, by serial number.
	secrets map[string][sha256.Size]byte
}

func (d Devices) Authenticate(_ context.Context, c engine.Credentials) (engine.Identity, error) {
	header := http.Header(c.Header)
	serial := header.Get("X-Device-Serial")
	if serial == "" {
		// Nothing of ours was shown: the next scheme's matter.
		return engine.Identity{}, authn.NotMine(&engine.Error{
			Code: engine.CodeUnauthenticated, Rule: "device.missing",
			Message: "No X-Device-Serial header was sent.",
		})
	}
	// From here on the client is ours, and a refusal is the last word. The rule
	// is the same for an unknown device and a wrong secret, to tell nobody which
	// serial numbers exist.
	want, known := d.secrets[serial]
	got := sha256.Sum256([]byte(header.Get("X-Device-Secret")))
	if subtle.ConstantTimeCompare(got[:], want[:]) == 0 || !known {
		return engine.Identity{}, &engine.Error{
			Code: engine.CodeUnauthenticated, Rule: "device.secret",
			Message: "X-Device-Serial and X-Device-Secret are not those of a device.",
			Detail:  fmt.Sprintf("Serial number %.64q.", serial),
		}
	}
	user, err := engine.ParseUserID("device:" + serial)
	if err != nil {
		return engine.Identity{}, err
	}
	return engine.Identity{
		UserID: user, Scheme: "Device",
		Roles:  []string{"webpubsub.sendToGroup.telemetry"},
		Claims: map[string][]string{"serial": {serial}},
	}, nil
}

var _ authn.Authenticator = Devices{}

// Devices that have a secret, people who have a token, and nobody else.
func Example() {
	key := accesskey.Generate()
	clients := authn.Clients(
		Devices{map[string][sha256.Size]byte{"A-17": sha256.Sum256([]byte("s3cret"))}},
		accesskey.NewClients(accesskey.NewRing(key, accesskey.Key{}), nil),
		authn.Anonymous{}, // admits nobody, but says so well
	)
	knock := func(text string, header http.Header) {
		id, err := clients.Authenticate(context.Background(), engine.Credentials{
			Hub: "plant", Audience: "wss://rt.example.com/client/hubs/plant", Token: text, Header: header,
		})
		var refused *engine.Error
		if errors.As(err, &refused) {
			fmt.Println("refused:", refused.Rule)
			return
		}
		fmt.Println(id.Scheme, id.UserID)
	}

	knock("", http.Header{"X-Device-Serial": {"A-17"}, "X-Device-Secret": {"s3cret"}})
	knock("", http.Header{"X-Device-Serial": {"A-17"}, "X-Device-Secret": {"guess"}})
	app := accesskey.ConnectionString{Endpoint: "https://rt.example.com", Key: key}
	text, err := app.ClientToken("plant", token.Claims{User: "ann"})
	if err != nil {
		fmt.Println(err)
	}
	knock(text, nil)
	knock("", nil)
	// Output:
	// Device device:A-17
	// refused: device.secret
	// AccessToken ann
	// refused: token.missing
}
