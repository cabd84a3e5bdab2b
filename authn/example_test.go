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

// Jobs is an authorizer of one's own: batch jobs come with a secret of their own,
// and each may send to the groups of one hub.
type Jobs struct {
	jobs map[[sha256.Size]byte]Job // by the SHA-256 of the secret
}

// Job is what one of them may do.
type Job struct {
	Name string
	Hub  engine.HubName
}

func (j Jobs) Authorize(_ context.Context, r engine.ServerRequest) (engine.Principal, error) {
	secret := http.Header(r.Header).Get("X-Job-Secret")
	if secret == "" {
		return engine.Principal{}, authn.NotMine(&engine.Error{
			Code: engine.CodeUnauthenticated, Rule: "job.missing",
			Message: "No X-Job-Secret header was sent.",
		})
	}
	// How long a look-up takes tells of the hash alone, which is of no use.
	job, known := j.jobs[sha256.Sum256([]byte(secret))]
	if !known {
		return engine.Principal{}, engine.Errorf(engine.CodeUnauthenticated, "job.secret", "X-Job-Secret is not that of a job.")
	}
	return engine.Principal{ID: job.Name, Scheme: "Job", Allow: func(a engine.Action, hub engine.HubName) error {
		if a == engine.ActionGroupSend && hub == job.Hub {
			return nil
		}
		return engine.Errorf(engine.CodeForbidden, "job.action", "The job %s may only send to groups of hub %s.", job.Name, job.Hub)
	}}, nil
}

var _ authn.Authorizer = Jobs{}

// Jobs that have a secret, servers that have the access key, and nobody else.
func ExampleServers() {
	key := accesskey.Generate()
	servers := authn.Servers(
		Jobs{map[[sha256.Size]byte]Job{sha256.Sum256([]byte("s3cret")): {"nightly", "news"}}},
		accesskey.NewServers(accesskey.NewRing(key, accesskey.Key{}), nil),
	)
	// What package rest does for each request.
	call := func(header http.Header, action engine.Action, hub engine.HubName) {
		p, err := servers.Authorize(context.Background(), engine.ServerRequest{
			Method: "POST", Scheme: "https", Host: "rt.example.com", Target: "/api/hubs/news/:send", Header: header,
		})
		if err == nil {
			err = p.May(action, hub)
		}
		var refused *engine.Error
		if errors.As(err, &refused) {
			fmt.Println(refused.Code, "by", refused.Rule)
			return
		}
		fmt.Println(p.Scheme, p.ID)
	}

	job := http.Header{"X-Job-Secret": {"s3cret"}}
	call(job, engine.ActionGroupSend, "news")
	call(job, engine.ActionGroupSend, "chat")
	call(job, engine.ActionHubSend, "news")
	call(http.Header{"X-Job-Secret": {"guess"}}, engine.ActionGroupSend, "news")

	app := accesskey.ConnectionString{Endpoint: "https://rt.example.com", Key: key}
	text, err := app.ServerToken("https://rt.example.com/api/hubs/news/:send")
	if err != nil {
		fmt.Println(err)
	}
	call(http.Header{"Authorization": {"Bearer " + text}}, engine.ActionHubSend, "news")
	call(nil, engine.ActionHubSend, "news")
	// Output:
	// Job nightly
	// forbidden by job.action
	// forbidden by job.action
	// unauthenticated by job.secret
	// AccessKey primary
	// unauthenticated by job.missing
}
