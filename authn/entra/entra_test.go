package entra_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/engine"
)

var ctx = context.Background()

type with = map[string]any

// v1 are the claims that differ in a token of version 1.0.
var v1 = with{"iss": "https://sts.windows.net/" + tenant + "/", "ver": "1.0", "azp": nil, "azpacr": nil, "appid": robotApp, "appidacr": "1"}

// user are the claims that differ in a token of a user who came through an
// application.
var user = with{"oid": ann, "sub": "a-pairwise-subject", "idtyp": "user", "scp": "user_impersonation", "azp": robotApp}

// Tokens that hold, as Entra ID issues them.
func TestAccepted(t *testing.T) {
	p := newProvider()
	o := p.serve(t)
	s := entra.NewServers(newIssuer(t, p, o), []string{entra.Audience, "api://fanfare"}, owners(t, robot, ann, crew, "Fanfare.Admin"))
	now := time.Now().Unix()
	for name, test := range map[string]struct {
		claims []map[string]any
		id     string
	}{
		"version 2.0":                      {nil, robot},
		"version 1.0":                      {[]with{v1}, robot},
		"no version":                       {[]with{{"ver": nil}}, robot},
		"another audience":                 {[]with{{"aud": "api://fanfare"}}, robot},
		"several audiences":                {[]with{{"aud": []string{"api://other", entra.Audience}}}, robot},
		"a user":                           {[]with{user}, ann},
		"a user, said by scp alone":        {[]with{user, {"idtyp": nil}}, ann},
		"an application, idtyp missing":    {[]with{{"idtyp": nil}}, robot},
		"a member of a group":              {[]with{user, {"oid": stranger, "groups": []string{stranger, crew}}}, stranger},
		"a group in capitals":              {[]with{user, {"oid": stranger, "groups": []string{strings.ToUpper(crew)}}}, stranger},
		"an app role":                      {[]with{{"oid": stranger, "roles": []string{"Other", "Fanfare.Admin"}}}, stranger},
		"the tenant in capitals":           {[]with{{"tid": strings.ToUpper(tenant)}}, robot},
		"expired four minutes ago":         {[]with{{"exp": now - 240}}, robot},
		"valid in four minutes":            {[]with{{"nbf": now + 240}}, robot},
		"no nbf":                           {[]with{{"nbf": nil, "iat": nil}}, robot},
		"times with fractions":             {[]with{{"exp": float64(now) + 3600.5, "nbf": float64(now) - .5}}, robot},
		"an unknown claim of another type": {[]with{{"amr": []int{1}, "xms_mirid": with{"a": nil}}}, robot},
		"a claim that is null":             {[]with{{"groups": json.RawMessage("null"), "scp": json.RawMessage("null")}}, robot},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := show(s, p.token("one", test.claims...))
			if err != nil {
				t.Fatalf("refused: %v", err)
			}
			if got.ID != test.id || got.Scheme != "Entra" {
				t.Errorf("got %s %s; want %s", got.Scheme, got.ID, test.id)
			}
			if err := got.May(engine.ActionHubSend, "chat"); err != nil {
				t.Errorf("may not send: %v", err)
			}
		})
	}
	if n := p.requests(keysPath); n != 1 {
		t.Errorf("the keys were read %d times; want once", n)
	}
}

// What attackers and mistakes come with, and the rule that stops each.
func TestRefused(t *testing.T) {
	p := newProvider()
	o := p.serve(t)
	s := entra.NewServers(newIssuer(t, p, o), nil, owners(t, robot, robotApp))
	now := time.Now().Unix()
	one, two := private("one"), private("two")
	good, _ := json.Marshal(p.claims())
	const header = `{"alg":"RS256","typ":"JWT","kid":"one"}`
	b64 := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	payload := func(insert string) string { return signed(one, header, "{"+insert+","+string(good)[1:]) }
	public, err := x509.MarshalPKIXPublicKey(&one.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	// hmacWith signs as the classic attack does: with the public key for a secret.
	hmacWith := func(secret []byte, kid string) string {
		text := b64(`{"alg":"HS256","typ":"JWT","kid":"`+kid+`"}`) + "." + b64(string(good))
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
	}
	other := func(m jwt.SigningMethod, key any) string {
		t.Helper()
		token := jwt.NewWithClaims(m, jwt.MapClaims(p.claims()))
		token.Header["kid"] = "one"
		text, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	genuine := p.token("one")
	signature := genuine[strings.LastIndexByte(genuine, '.')+1:]

	for name, test := range map[string]struct{ token, rule string }{
		// Algorithms and keys.
		"alg none":                     {b64(`{"alg":"none","typ":"JWT","kid":"one"}`) + "." + b64(string(good)) + ".", "entra.alg"},
		"alg None":                     {b64(`{"alg":"None","kid":"one"}`) + "." + b64(string(good)) + ".", "entra.alg"},
		"alg none with a signature":    {b64(`{"alg":"none","kid":"one"}`) + "." + b64(string(good)) + "." + signature, "entra.alg"},
		"no alg":                       {signed(one, `{"typ":"JWT","kid":"one"}`, string(good)), "entra.alg"},
		"alg in lower case":            {signed(one, `{"alg":"rs256","kid":"one"}`, string(good)), "entra.alg"},
		"HS512 with the public key":    {other(jwt.SigningMethodHS512, public), "entra.alg"},
		"RS512":                        {other(jwt.SigningMethodRS512, one), "entra.alg"},
		"PS256":                        {other(jwt.SigningMethodPS256, one), "entra.alg"},
		"ES256":                        {other(jwt.SigningMethodES256, ec), "entra.alg"},
		"no kid":                       {signed(one, `{"alg":"RS256","typ":"JWT"}`, string(good)), "entra.kid"},
		"kid null":                     {signed(one, `{"alg":"RS256","kid":null}`, string(good)), "entra.kid"},
		"kid empty":                    {signed(one, `{"alg":"RS256","kid":""}`, string(good)), "entra.kid"},
		"kid too long":                 {signed(one, `{"alg":"RS256","kid":"`+strings.Repeat("k", 257)+`"}`, string(good)), "entra.kid"},
		"kid unknown":                  {signed(two, `{"alg":"RS256","kid":"two"}`, string(good)), "entra.kid"},
		"a key in the header":          {signed(two, `{"alg":"RS256","kid":"two","jwk":`+string(mustJSON(jwk("two", &two.PublicKey)))+`}`, string(good)), "entra.kid"},
		"where to find a key":          {signed(two, `{"alg":"RS256","kid":"one","jku":"https://evil.example.com/keys"}`, string(good)), "entra.signature"},
		"another's signature":          {signed(two, header, string(good)), "entra.signature"},
		"a signature of another token": {b64(header) + "." + b64(`{"admin":true,`+string(good)[1:]) + "." + signature, "entra.signature"},
		"no signature":                 {b64(header) + "." + b64(string(good)) + ".", "entra.signature"},
		"extensions":                   {signed(one, `{"alg":"RS256","kid":"one","crit":["exp"],"exp":1}`, string(good)), "entra.crit"},
		"an encrypted token's type":    {signed(one, `{"alg":"RS256","kid":"one","typ":"JWE"}`, string(good)), "entra.typ"},

		// Who issued it.
		"another tenant, 2.0":            {p.token("one", with{"iss": p.url + "/" + stranger + "/v2.0", "tid": stranger}), "entra.issuer"},
		"another tenant, 1.0":            {p.token("one", v1, with{"iss": "https://sts.windows.net/" + stranger + "/", "tid": stranger}), "entra.issuer"},
		"another tenant's tid":           {p.token("one", with{"tid": stranger}), "entra.tenant"},
		"no tid":                         {p.token("one", with{"tid": nil}), "entra.tenant"},
		"another issuer":                 {p.token("one", with{"iss": "https://evil.example.com/" + tenant + "/v2.0"}), "entra.issuer"},
		"no issuer":                      {p.token("one", with{"iss": nil}), "entra.issuer"},
		"the issuer of every tenant":     {p.token("one", with{"iss": p.url + "/common/v2.0"}), "entra.issuer"},
		"the template of issuers":        {p.token("one", with{"iss": p.url + "/{tenantid}/v2.0"}), "entra.issuer"},
		"the issuer 2.0 and a slash":     {p.token("one", with{"iss": p.url + "/" + tenant + "/v2.0/"}), "entra.issuer"},
		"the issuer 1.0 without a slash": {p.token("one", v1, with{"iss": "https://sts.windows.net/" + tenant}), "entra.issuer"},
		"1.0 in the name of 2.0":         {p.token("one", with{"ver": "1.0"}), "entra.version"},
		"2.0 in the name of 1.0":         {p.token("one", v1, with{"ver": "2.0"}), "entra.version"},

		// When.
		"expired":                  {p.token("one", with{"exp": now - 360}), "entra.expired"},
		"expired long ago":         {p.token("one", with{"exp": 0}), "entra.expired"},
		"no exp":                   {p.token("one", with{"exp": nil}), "entra.exp"},
		"exp null":                 {p.token("one", with{"exp": json.RawMessage("null")}), "entra.exp"},
		"exp a string":             {p.token("one", with{"exp": fmt.Sprint(now + 3600)}), "entra.malformed"},
		"exp beyond all calendars": {p.token("one", with{"exp": json.RawMessage("1e300")}), "entra.malformed"},
		"exp negative":             {p.token("one", with{"exp": -1}), "entra.malformed"},
		"not yet":                  {p.token("one", with{"nbf": now + 360}), "entra.notyet"},
		"nbf no number":            {p.token("one", with{"nbf": true}), "entra.malformed"},

		// For whom, and whose.
		"no audience":              {p.token("one", with{"aud": nil}), "entra.audience"},
		"an empty list":            {p.token("one", with{"aud": []string{}}), "entra.audience"},
		"another audience":         {p.token("one", with{"aud": "https://management.azure.com"}), "entra.audience"},
		"other audiences":          {p.token("one", with{"aud": []string{"a", "b"}}), "entra.audience"},
		"the audience and a slash": {p.token("one", with{"aud": entra.Audience + "/"}), "entra.audience"},
		"the audience in capitals": {p.token("one", with{"aud": strings.ToUpper(entra.Audience)}), "entra.audience"},
		"the scope":                {p.token("one", with{"aud": entra.Audience + "/.default"}), "entra.audience"},
		"a number for an audience": {p.token("one", with{"aud": 1}), "entra.malformed"},
		"an ID token":              {p.token("one", with{"azp": nil, "nonce": "n"}), "entra.caller"},
		"two applications":         {p.token("one", with{"appid": stranger}), "entra.malformed"},

		// Forms that two readers could read in two ways.
		"aud twice":              {payload(`"aud":"x"`), "entra.malformed"},
		"oid twice":              {payload(`"oid":"x"`), "entra.malformed"},
		"roles twice":            {payload(`"roles":["a"],"roles":["b"]`), "entra.malformed"},
		"an unknown claim twice": {payload(`"x":1,"\u0078":2`), "entra.malformed"},
		"alg twice":              {signed(one, `{"alg":"HS256","alg":"RS256","kid":"one"}`, string(good)), "entra.malformed"},
		"claims in capitals":     {signed(one, header, strings.ToUpper(string(good))), "entra.exp"},
		"not UTF-8":              {payload("\"x\":\"\xff\""), "entra.malformed"},
		"text behind the claims": {signed(one, header, string(good)+"{}"), "entra.malformed"},
		"claims that are a list": {signed(one, header, "["+string(good)+"]"), "entra.malformed"},
		"claims that are null":   {signed(one, header, "null"), "entra.exp"},
		"claims of another type": {p.token("one", with{"oid": 7}), "entra.malformed"},
		"groups of another type": {p.token("one", with{"groups": []any{1}}), "entra.malformed"},
		"names of another type":  {p.token("one", with{"_claim_names": "groups"}), "entra.malformed"},
		"half a surrogate":       {payload(`"x":"\ud800"`), "entra.malformed"},
		"too many claims":        {payload(strings.Join(many(257), ",")), "entra.malformed"},
		"claims nested too deep": {payload(`"x":` + strings.Repeat("[", 17) + strings.Repeat("]", 17)), "entra.malformed"},
		"a line break":           {strings.Replace(genuine, signature, signature[:9]+"\n"+signature[9:], 1), "entra.malformed"},
		"padding":                {genuine + "=", "entra.malformed"},
		"four parts":             {genuine + ".x", "entra.malformed"},
		"two parts":              {b64(header) + "." + b64(string(good)), "entra.malformed"},
		"no token":               {"x", "entra.malformed"},
		"too long":               {b64(header) + "." + strings.Repeat("x", entra.MaxToken) + ".x", "entra.length"},

		// HS256 is another scheme's: its rule is told if nobody else is there.
		"HS256 with the public key":     {hmacWith(public, "one"), "entra.alg"},
		"HS256 with the key in PEM":     {hmacWith(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), "one"), "entra.alg"},
		"HS256 with the modulus":        {hmacWith(one.N.Bytes(), "one"), "entra.alg"},
		"HS256 with nothing for a key":  {hmacWith(nil, "one"), "entra.alg"},
		"HS256 with a key id in a file": {hmacWith(nil, "../../dev/null"), "entra.alg"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := show(s, test.token)
			refused(t, err, engine.CodeUnauthenticated, test.rule, test.token)
			switch test.rule {
			case "entra.issuer", "entra.tenant", "entra.version", "entra.expired", "entra.notyet", "entra.audience", "entra.caller":
				if e, _ := errors.AsType[*engine.Error](err); !strings.Contains(e.Detail, robot) {
					t.Errorf("the log does not learn whose token it was: %s", e.Detail)
				}
			}
		})
	}
}

// many returns that many claims that mean nothing.
func many(n int) (claims []string) {
	for i := range n {
		claims = append(claims, fmt.Sprintf(`"c%d":%d`, i, i))
	}
	return claims
}

func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// What a role allows: Azure's own two, and those of one's own.
func TestRoles(t *testing.T) {
	actions := []engine.Action{
		engine.ActionGenerateToken, engine.ActionHubSend, engine.ActionGroupSend, engine.ActionUserSend, engine.ActionConnectionSend,
		engine.ActionConnectionRead, engine.ActionConnectionWrite, engine.ActionGroupRead, engine.ActionGroupWrite, engine.ActionUserRead,
	}
	ofUsers := []engine.Action{engine.ActionIdentityRead, engine.ActionIdentityWrite, engine.ActionIdentityToken}
	const users = "identity/read identity/write identity/token/action"
	reads := "clientConnection/read group/read user/read"
	var every []string
	for _, a := range actions {
		every = append(every, string(a))
	}
	for name, test := range map[string]struct {
		role    string
		actions []string // of a definition; none for Azure's own
		want    string   // in a hub
		users   string   // on users, who are of none
	}{
		"owner":               {entra.RoleOwner, nil, strings.Join(every, " "), ""},
		"owner by id":         {"12cf5a90-567b-43ae-8102-96cf46c7d9b4", nil, strings.Join(every, " "), ""},
		"reader":              {entra.RoleReader, nil, reads, ""},
		"reader, other case":  {"web pubsub service READER", nil, reads, ""},
		"reader by id":        {"BFB1C7D2-FB1A-466B-B2BA-AEE63B92DEAF", nil, reads, ""},
		"one action":          {"Sender", []string{"hub/send/action"}, "hub/send/action", ""},
		"an action in full":   {"Sender", []string{"Microsoft.SignalRService/WebPubSub/group/send/action"}, "group/send/action", ""},
		"other case":          {"Sender", []string{"MICROSOFT.SIGNALRSERVICE/webpubsub/Group/Send/Action"}, "group/send/action", ""},
		"a pattern":           {"Sender", []string{"*/send/action"}, "hub/send/action group/send/action user/send/action clientConnection/send/action", ""},
		"a pattern in full":   {"Reader", []string{"Microsoft.SignalRService/WebPubSub/*/read"}, reads, ""},
		"a wide pattern":      {"All", []string{"Microsoft.SignalRService/*"}, strings.Join(every, " "), ""},
		"several":             {"Two", []string{"group/*", "user/read"}, "group/send/action group/read group/write user/read", ""},
		"none of ours":        {"Trace", []string{"livetrace/read", "auth/accessKey/action"}, "", ""},
		"no pattern but dots": {"Dots", []string{"user/read", "auth/accessToken/action"}, "user/read", ""},
		"of users":            {entra.RoleCommunicationOwner, nil, "", users},
		"of users by id":      {"09976791-48A7-449E-BB21-39D1A415F350", nil, "", users},
		"one of users":        {"Registrar", []string{"identity/write"}, "", "identity/write"},
		"one in full":         {"Issuer", []string{"microsoft.communication/communicationServices/identity/token/action"}, "", "identity/token/action"},
		"a pattern of users":  {"Clerk", []string{"identity/*"}, "", users},
		"all of a provider":   {"Clerk", []string{"Microsoft.Communication/*"}, "", users},
		"of both":             {"Mixed", []string{"group/*", "identity/read"}, "group/send/action group/read group/write", "identity/read"},
		"everything":          {"All", []string{"*"}, strings.Join(every, " "), users},
		"everything in full":  {"All", []string{"Microsoft.*"}, strings.Join(every, " "), users},
		"every read":          {"Auditor", []string{"*/read"}, reads, "identity/read"},
	} {
		t.Run(name, func(t *testing.T) {
			roles := entra.NewRoles()
			if test.actions != nil {
				if err := roles.Define(test.role, test.actions...); err != nil {
					t.Fatal(err)
				}
			}
			if err := roles.Assign(robot, test.role, "*"); err != nil {
				t.Fatal(err)
			}
			// A role of which nothing would be left in a single hub is a mistake.
			if err := roles.Assign(ann, test.role, "Chat"); (err == nil) != (test.want != "" || test.users == "") {
				t.Fatalf("assigned in one hub: %v", err)
			} else if err != nil && ruleOf(err) != "entra.hub" {
				t.Errorf("assigned in one hub: %v", err)
			}
			p := newProvider()
			s := entra.NewServers(newIssuer(t, p, p.inMemory()), nil, roles)
			for caller, hubs := range map[string][]engine.HubName{robot: {"chat", "other"}, ann: {"chat"}} {
				principal, err := show(s, p.token("one", with{"oid": caller}))
				if err != nil {
					t.Fatal(err)
				}
				for _, hub := range hubs {
					var got []string
					for _, a := range actions {
						switch err := principal.May(a, hub); {
						case err == nil:
							got = append(got, string(a))
						case ruleOf(err) != "entra.role" || engine.CodeOf(err) != engine.CodeForbidden:
							t.Errorf("%s: %v", a, err)
						}
					}
					if !sameSet(got, strings.Fields(test.want)) {
						t.Errorf("in %s: got %v; want %s", hub, got, test.want)
					}
				}
			}
			// A role in one hub is none in another, nor for what is of no hub.
			principal, err := show(s, p.token("one", with{"oid": ann}))
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range actions {
				if ruleOf(principal.May(a, "other")) != "entra.role" {
					t.Errorf("%s is allowed in a hub without the role", a)
				}
			}
			everywhere, err := show(s, p.token("one", with{"oid": robot}))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range ofUsers {
				if everywhere.May(a, "") == nil {
					got = append(got, string(a))
				}
				if principal.May(a, "") == nil || principal.May(a, "chat") == nil {
					t.Errorf("%s is allowed by a role in one hub", a)
				}
			}
			if !sameSet(got, strings.Fields(test.users)) {
				t.Errorf("on users: got %v; want %s", got, test.users)
			}
		})
	}
}

// A refusal names the action as Azure does, of the provider that has it.
func TestForbidden(t *testing.T) {
	p := newProvider()
	roles := entra.NewRoles()
	if err := roles.Assign(robot, entra.RoleReader, "*"); err != nil {
		t.Fatal(err)
	}
	principal, err := show(entra.NewServers(newIssuer(t, p, p.inMemory()), nil, roles), p.token("one"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		action engine.Action
		hub    engine.HubName
		want   string
	}{
		{engine.ActionHubSend, "chat", "No role that this caller has in hub chat includes Microsoft.SignalRService/WebPubSub/hub/send/action."},
		{engine.ActionIdentityToken, "", "No role that this caller has in every hub (*) includes Microsoft.Communication/CommunicationServices/identity/token/action."},
	} {
		e, _ := errors.AsType[*engine.Error](principal.May(test.action, test.hub))
		if e == nil || e.Code != engine.CodeForbidden || e.Rule != "entra.role" || e.Message != test.want {
			t.Errorf("%s: got %v; want %s", test.action, e, test.want)
		}
	}
}

// A handler of one's own behind the scheme.
func TestMiddleware(t *testing.T) {
	p := newProvider()
	roles := entra.NewRoles()
	if err := roles.Assign(robot, entra.RoleReader, "*"); err != nil {
		t.Fatal(err)
	}
	h := entra.NewServers(newIssuer(t, p, p.inMemory()), nil, roles).Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, ok := authn.Caller(r.Context())
		if !ok || caller.May(engine.ActionGroupRead, "chat") != nil || caller.May(engine.ActionGroupSend, "chat") == nil {
			t.Errorf("the caller is %+v, %v", caller, ok)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	for token, want := range map[string]int{"Bearer " + p.token("one"): 204, "": 401, "Bearer x": 401} {
		r := httptest.NewRequest("POST", "/texts", nil)
		if token != "" {
			r.Header.Set("Authorization", token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want || want == 401 && !strings.Contains(w.Body.String(), "Denied by the resource provider.") {
			t.Errorf("%.20q: %d %s; want %d", token, w.Code, w.Body, want)
		}
	}
}

func sameSet(a, b []string) bool {
	seen := map[string]int{}
	for _, s := range a {
		seen[s] |= 1
	}
	for _, s := range b {
		seen[s] |= 2
	}
	for _, n := range seen {
		if n != 3 {
			return false
		}
	}
	return true
}

// What may stand for a caller, and what may not.
func TestWhoTheCallerIs(t *testing.T) {
	p := newProvider()
	i := newIssuer(t, p, p.inMemory())
	for name, test := range map[string]struct {
		assigned string
		claims   []map[string]any
		may      bool
		rule     string
	}{
		"an application by its object id":      {robot, nil, true, ""},
		"an application by its own id":         {robotApp, nil, true, ""},
		"an application of 1.0 by its own id":  {robotApp, []with{v1}, true, ""},
		"an id in capitals":                    {strings.ToUpper(robotApp), nil, true, ""},
		"a user by the application's id":       {robotApp, []with{user}, false, "entra.role"},
		"a user by that of 1.0":                {robotApp, []with{v1, user, {"azp": nil}}, false, "entra.role"},
		"a user who says nothing of a scope":   {robotApp, []with{user, {"scp": nil}}, false, "entra.role"},
		"a user who says nothing of a type":    {robotApp, []with{user, {"idtyp": nil}}, false, "entra.role"},
		"an unknown kind of token":             {robotApp, []with{{"idtyp": "device"}}, false, "entra.role"},
		"a subject is no id":                   {"a-pairwise-subject", []with{user}, false, "entra.role"},
		"an app role that looks like an id":    {crew, []with{{"roles": []string{crew}}}, false, "entra.role"},
		"an app role in another case":          {"Admin", []with{{"roles": []string{"admin"}}}, false, "entra.role"},
		"a group by name":                      {"Admin", []with{user, {"groups": []string{"Admin"}}}, false, "entra.role"},
		"nobody":                               {stranger, nil, false, "entra.role"},
		"groups elsewhere":                     {crew, []with{user, {"_claim_names": with{"groups": "src1"}, "_claim_sources": with{"src1": with{"endpoint": "https://graph.windows.net/x"}}}}, false, "entra.groups"},
		"groups elsewhere and here":            {crew, []with{user, {"_claim_names": with{"groups": "src1"}, "groups": []string{crew}}}, false, "entra.groups"},
		"groups elsewhere, of the other form":  {crew, []with{user, {"hasgroups": true}}, false, "entra.groups"},
		"groups elsewhere and a role of one's": {ann, []with{user, {"hasgroups": true}}, true, ""},
		"other claims elsewhere":               {crew, []with{user, {"_claim_names": with{"roles": "src1"}, "groups": []string{crew}}}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := entra.NewServers(i, nil, owners(t, test.assigned))
			token := p.token("one", test.claims...)
			principal, err := show(s, token)
			if err != nil {
				t.Fatal(err)
			}
			err = principal.May(engine.ActionGroupSend, "chat")
			if test.may {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			refused(t, err, engine.CodeForbidden, test.rule, token)
			var e *engine.Error
			if e, _ = err.(*engine.Error); !strings.Contains(e.Detail, "oid") {
				t.Errorf("the log does not learn who it was: %s", e.Detail)
			}
			if test.rule == "entra.groups" && !strings.Contains(e.Message, "more groups than its token holds") {
				t.Errorf("the refusal does not say so: %s", e.Message)
			}
		})
	}
}

// What cannot be set is told with the parameter at fault.
func TestMistakes(t *testing.T) {
	for name, test := range map[string]struct {
		do     func(*entra.Roles) error
		rule   string
		target string
	}{
		"no such role":          {func(r *entra.Roles) error { return r.Assign(robot, "SignalR/Web PubSub Contributor", "*") }, "entra.role", "role"},
		"no principal":          {func(r *entra.Roles) error { return r.Assign("", entra.RoleOwner, "*") }, "entra.principal", "principalId"},
		"blanks":                {func(r *entra.Roles) error { return r.Assign(" x", entra.RoleOwner, "*") }, "entra.principal", "principalId"},
		"no hub":                {func(r *entra.Roles) error { return r.Assign(robot, entra.RoleOwner, "") }, "entra.hub", "hub"},
		"users of one hub":      {func(r *entra.Roles) error { return r.Assign(robot, entra.RoleCommunicationOwner, "chat") }, "entra.hub", "hub"},
		"users, elsewhere":      {func(r *entra.Roles) error { return r.Define("x", "Microsoft.SignalRService/WebPubSub/identity/read") }, "entra.dataaction", ""},
		"no hub's name":         {func(r *entra.Roles) error { return r.Assign(robot, entra.RoleOwner, "1") }, "entra.hub", "hub"},
		"role without a name":   {func(r *entra.Roles) error { return r.Define(" ", "hub/send/action") }, "entra.definition", ""},
		"a role twice":          {func(r *entra.Roles) error { return r.Define("WEB pubsub service owner", "hub/send/action") }, "entra.definition", ""},
		"a role of nothing":     {func(r *entra.Roles) error { return r.Define("x") }, "entra.definition", ""},
		"no such action":        {func(r *entra.Roles) error { return r.Define("x", "hub/send") }, "entra.dataaction", ""},
		"a dot is no wildcard":  {func(r *entra.Roles) error { return r.Define("x", "hub.send.action") }, "entra.dataaction", ""},
		"an action of another":  {func(r *entra.Roles) error { return r.Define("x", "Microsoft.Storage/*") }, "entra.dataaction", ""},
		"a tenant by name":      {func(*entra.Roles) error { return newIssuerErr(entra.Authority, "contoso.onmicrosoft.com") }, "entra.tenantid", "tenantId"},
		"every tenant":          {func(*entra.Roles) error { return newIssuerErr(entra.Authority, "common") }, "entra.tenantid", "tenantId"},
		"an authority in clear": {func(*entra.Roles) error { return newIssuerErr("http://login.example.com", tenant) }, "entra.authority", "authority"},
		"an authority's query":  {func(*entra.Roles) error { return newIssuerErr("https://login.example.com?x", tenant) }, "entra.authority", "authority"},
		"a password":            {func(*entra.Roles) error { return newIssuerErr("https://u:p@login.example.com", tenant) }, "entra.authority", "authority"},
		"no URL":                {func(*entra.Roles) error { return newIssuerErr("login.example.com", tenant) }, "entra.authority", "authority"},
	} {
		err := test.do(entra.NewRoles())
		e, _ := err.(*engine.Error)
		if e == nil || e.Rule != test.rule || e.Target != test.target || e.Code != engine.CodeInvalid {
			t.Errorf("%s: got %v; want %s", name, err, test.rule)
		}
	}
}

func newIssuerErr(authority, tenant string) error {
	_, err := entra.NewIssuer(authority, tenant, nil)
	return err
}

// Another OpenID provider has one name, and its tokens no tenant.
func TestOtherProvider(t *testing.T) {
	for _, slash := range []string{"", "/"} {
		p := newProvider()
		p.url = "https://id.example.com"
		p.document = with{"issuer": p.url + slash}
		i, err := entra.NewIssuer(p.url, "", p.inMemoryAtRoot())
		if err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		p.setKeys("one")
		delete(p.keys["one"].(map[string]any), "issuer")
		s := entra.NewServers(i, nil, owners(t, "my-server", "ops"))
		plain := with{"iss": p.url + slash, "tid": nil, "ver": nil, "oid": nil, "azp": nil, "idtyp": nil, "sub": "somebody"}

		for name, claims := range map[string]map[string]any{
			"client_id": {"client_id": "my-server"}, "azp": {"azp": "my-server"}, "a group": {"azp": "x", "groups": []string{"ops"}}, "a role": {"azp": "x", "roles": "ops"},
		} {
			got, err := show(s, p.token("one", plain, claims))
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if err := got.May(engine.ActionHubSend, "chat"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		got, err := show(s, p.token("one", plain, with{"azp": "x", "sub": "ops"}))
		if err != nil || ruleOf(got.May(engine.ActionHubSend, "chat")) != "entra.role" {
			t.Errorf("a subject of the name of a group: %v", err)
		}
		for iss, rule := range map[string]string{p.url + slash + "/": "entra.issuer", "https://sts.windows.net/" + tenant + "/": "entra.issuer"} {
			text := p.token("one", plain, with{"iss": iss, "azp": "my-server"})
			_, err := show(s, text)
			refused(t, err, engine.CodeUnauthenticated, rule, text)
		}
	}
}

// In front of the access keys: each token is judged by its own scheme alone.
func TestBesideAccessKeys(t *testing.T) {
	p := newProvider()
	key := accesskey.Generate()
	ring := accesskey.NewRing(key, accesskey.Key{})
	both := authn.Servers(entra.NewServers(newIssuer(t, p, p.inMemory()), nil, owners(t, robot)), accesskey.NewServers(ring, nil))
	local, err := accesskey.ConnectionString{Endpoint: "https://rt.example.com", Key: key}.ServerToken("https://rt.example.com/api/hubs/chat/:send")
	if err != nil {
		t.Fatal(err)
	}
	want := func(name, token, scheme, rule string) {
		t.Helper()
		got, err := show(both, token)
		if rule != "" {
			if ruleOf(err) != rule || engine.CodeOf(err) != engine.CodeUnauthenticated {
				t.Errorf("%s: got %v; want %s", name, err, rule)
			}
		} else if err != nil || got.Scheme != scheme {
			t.Errorf("%s: got %+v, %v; want %s", name, got, err, scheme)
		}
	}
	// With the public key for an HMAC's secret, and the audience of an access key.
	confused := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"aud": "https://rt.example.com/api/hubs/chat/:send", "exp": time.Now().Add(time.Hour).Unix()})
	confused.Header["kid"] = "one"
	forged, err := confused.SignedString(x509.MarshalPKCS1PublicKey(&private("one").PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	want("Entra ID", p.token("one"), "Entra", "")
	want("an access key", local, "AccessKey", "")
	want("a forged one", forged, "", "token.signature")
	want("an expired one", p.token("one", with{"exp": 1}), "", "entra.expired")
	want("no token", "", "", "token.missing")
	want("nonsense", "nonsense", "", "token.malformed")
	ring.SetLocalAuth(false)
	want("Entra ID alone", p.token("one"), "Entra", "")
	want("an access key, switched off", local, "", "accesskey.disabled")
	want("a forged one, switched off", forged, "", "accesskey.disabled")
	want("nonsense, switched off", "nonsense", "", "accesskey.disabled")

	principal, err := show(both, p.token("one"))
	if err != nil || principal.May(engine.ActionGenerateToken, "chat") != nil {
		t.Errorf("Entra ID may not generate tokens: %v", err)
	}
}
