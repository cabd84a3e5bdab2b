package entra_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/engine"
)

// guest are the claims that differ in a token that is there to be exchanged.
var guest = with{"oid": ann, "sub": "a-pairwise-subject", "idtyp": "user", "scp": "Teams.ManageCalls Teams.ManageChats", "aud": entra.AudienceTeams}

// Tokens that may be exchanged, and what is known of whose they are.
func TestUsers(t *testing.T) {
	p := newProvider()
	u := entra.NewUsers(newIssuer(t, p, p.inMemory()), nil)
	exp := time.Now().Unix() + 1800
	for name, test := range map[string]struct {
		claims []map[string]any
		scopes string
	}{
		"version 2.0":         {nil, "Teams.ManageCalls Teams.ManageChats"},
		"version 1.0":         {[]with{v1}, "Teams.ManageCalls Teams.ManageChats"},
		"said by scp alone":   {[]with{{"idtyp": nil, "scp": "VoIP"}}, "VoIP"},
		"said by idtyp alone": {[]with{{"scp": nil}}, ""},
		"blanks around":       {[]with{{"scp": "  Chat   VoIP "}}, "Chat VoIP"},
		"ids in capitals":     {[]with{{"oid": strings.ToUpper(ann), "tid": strings.ToUpper(tenant), "azp": strings.ToUpper(robotApp)}}, "Teams.ManageCalls Teams.ManageChats"},
		"for Teams, a slash":  {[]with{{"aud": entra.AudienceTeams + "/"}}, "Teams.ManageCalls Teams.ManageChats"},
		"for clients":         {[]with{{"aud": entra.AudienceClients, "scp": "VoIP"}}, "VoIP"},
		"for clients, slash":  {[]with{{"aud": entra.AudienceClients + "/", "scp": "VoIP"}}, "VoIP"},
		"for the service":     {[]with{{"aud": entra.AudienceCommunication, "scp": "VoIP"}}, "VoIP"},
		"for it, a slash":     {[]with{{"aud": entra.AudienceCommunication + "/", "scp": "VoIP"}}, "VoIP"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := u.VerifyUser(ctx, p.token("one", append([]with{guest, {"exp": exp}}, test.claims...)...))
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"oid": ann, "tid": tenant, "appid": robotApp, "scp": test.scopes}
			for claim, value := range want {
				if list := strings.Join(got.Claims[claim], " "); list != value {
					t.Errorf("%s is %q; want %q", claim, list, value)
				}
			}
			if got.UserID != ann || got.Scheme != "EntraUser" || !got.Expires.Equal(time.Unix(exp, 0)) || len(got.Claims) != len(want) ||
				len(got.Claims["scp"]) != len(strings.Fields(test.scopes)) {
				t.Errorf("got %+v", got)
			}
			if got.Roles != nil || got.Groups != nil {
				t.Errorf("a token of Entra ID gives %v and %v", got.Roles, got.Groups)
			}
		})
	}
}

// What attackers exchange instead, and the rule that stops each.
func TestUsersRefused(t *testing.T) {
	p := newProvider()
	u := entra.NewUsers(newIssuer(t, p, p.inMemory()), nil)
	now := time.Now().Unix()
	token := func(claims ...map[string]any) string { return p.token("one", append([]with{guest}, claims...)...) }
	payload := string(mustJSON(p.claims(guest)))
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	mac := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(p.claims(guest)))
	mac.Header["kid"] = "one"
	hs256, err := mac.SignedString([]byte("a secret"))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ token, rule string }{
		"an application's own":              {token(with{"idtyp": "app", "scp": nil, "oid": robot, "sub": robot}), "entra.user"},
		"an application's, idtyp missing":   {token(with{"idtyp": nil, "scp": nil, "oid": robot, "sub": robot}), "entra.user"},
		"an application's, app roles":       {token(with{"idtyp": nil, "scp": nil, "roles": []string{"Teams.ManageCalls"}}), "entra.user"},
		"an application's with a scope":     {token(with{"idtyp": "app"}), "entra.user"},
		"an empty scope":                    {token(with{"idtyp": nil, "scp": ""}), "entra.user"},
		"a device's":                        {token(with{"idtyp": "device"}), "entra.user"},
		"no object":                         {token(with{"oid": nil}), "entra.object"},
		"a blank object":                    {token(with{"oid": "  "}), "entra.object"},
		"an object of no end":               {token(with{"oid": strings.Repeat("x", 1025)}), "entra.object"},
		"an ID token":                       {token(with{"azp": nil, "nonce": "n", "scp": nil, "idtyp": nil}), "entra.caller"},
		"an ID token for the application":   {token(with{"azp": nil, "aud": robotApp, "scp": nil, "idtyp": nil}), "entra.audience"},
		"another tenant's":                  {token(with{"iss": p.url + "/" + stranger + "/v2.0", "tid": stranger}), "entra.issuer"},
		"another tenant's tid":              {token(with{"tid": stranger}), "entra.tenant"},
		"personal accounts' tenant":         {token(with{"iss": p.url + "/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", "tid": "9188040d-6c67-4c5b-b112-36a304b66dad"}), "entra.issuer"},
		"one for a server of Web PubSub":    {token(with{"aud": entra.Audience}), "entra.audience"},
		"one for Graph":                     {token(with{"aud": "https://graph.microsoft.com"}), "entra.audience"},
		"two slashes":                       {token(with{"aud": entra.AudienceCommunication + "//"}), "entra.audience"},
		"a name that goes on":               {token(with{"aud": entra.AudienceCommunication + ".eve.example"}), "entra.audience"},
		"the scope for an audience":         {token(with{"aud": entra.AudienceClients + "/VoIP"}), "entra.audience"},
		"expired":                           {token(with{"exp": now - 360}), "entra.expired"},
		"not yet":                           {token(with{"nbf": now + 360}), "entra.notyet"},
		"no end":                            {token(with{"exp": nil}), "entra.exp"},
		"alg none":                          {part(`{"alg":"none","kid":"one"}`) + "." + part(payload) + ".", "entra.alg"},
		"HS256":                             {hs256, "entra.alg"},
		"another's key":                     {signed(private("two"), `{"alg":"RS256","kid":"one"}`, payload), "entra.signature"},
		"an unknown key":                    {signed(private("two"), `{"alg":"RS256","kid":"two"}`, payload), "entra.kid"},
		"scp twice":                         {signed(private("one"), `{"alg":"RS256","kid":"one"}`, `{"scp":"x",`+payload[1:]), "entra.malformed"},
		"scp that is a list":                {token(with{"scp": []string{"VoIP"}}), "entra.malformed"},
		"too long":                          {part(`{"alg":"RS256","kid":"one"}`) + "." + strings.Repeat("x", entra.MaxToken) + ".x", "entra.length"},
		"nothing":                           {"", "entra.malformed"},
		"a token with the scheme before it": {"Bearer " + token(), "entra.malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := u.VerifyUser(ctx, test.token)
			refused(t, err, engine.CodeUnauthenticated, test.rule, test.token)
			if test.rule == "entra.user" || test.rule == "entra.object" {
				if e, _ := errors.AsType[*engine.Error](err); !strings.Contains(e.Detail, robotApp) {
					t.Errorf("the log does not learn whose token it was: %s", e.Detail)
				}
			}
		})
	}
}

// A provider without tenants has users whom nobody can name here.
func TestUsersWithoutTenant(t *testing.T) {
	p := newProvider()
	p.url = "https://id.example.com"
	p.document = with{"issuer": p.url}
	p.setKeys("one")
	delete(p.keys["one"].(map[string]any), "issuer")
	i, err := entra.NewIssuer(p.url, "", p.inMemoryAtRoot())
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	text := p.token("one", guest, with{"iss": p.url, "tid": nil, "ver": nil})
	_, err = entra.NewUsers(i, nil).VerifyUser(ctx, text)
	refused(t, err, engine.CodeUnauthenticated, "entra.object", text)
}

// Servers of the users' service take its name in both forms, and users do not pass
// for servers of another.
func TestIdentityAudienceSlash(t *testing.T) {
	p := newProvider()
	i := newIssuer(t, p, p.inMemory())
	both := entra.EitherSlash(entra.AudienceCommunication, entra.Audience+"/")
	want := `["https://communication.azure.com","https://communication.azure.com/","https://webpubsub.azure.com","https://webpubsub.azure.com/"]`
	if got, err := json.Marshal(both); err != nil || string(got) != want {
		t.Fatalf("got %s, %v; want %s", got, err, want)
	}
	roles := entra.NewRoles()
	if err := roles.Assign(robot, entra.RoleCommunicationOwner, "*"); err != nil {
		t.Fatal(err)
	}
	s := entra.NewServers(i, entra.EitherSlash(entra.AudienceCommunication), roles)
	for _, aud := range []string{"https://communication.azure.com/", "https://communication.azure.com"} {
		principal, err := show(s, p.token("one", v1, with{"aud": aud}))
		if err != nil {
			t.Fatal(err)
		}
		if err := principal.May(engine.ActionIdentityWrite, ""); err != nil {
			t.Errorf("for %s: %v", aud, err)
		}
	}
	if _, err := show(s, p.token("one")); ruleOf(err) != "entra.audience" {
		t.Errorf("a token for Web PubSub: %v", err)
	}
}
