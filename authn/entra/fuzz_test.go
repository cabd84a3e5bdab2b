package entra_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/engine"
)

// FuzzToken shows any text for a token. Only what carries a genuine header, payload
// and signature gets in; nothing panics, and no refusal is without a rule.
func FuzzToken(f *testing.F) {
	p := newProvider()
	s := entra.NewServers(newIssuer(f, p, p.inMemory()), nil, owners(f, robot))
	good, old := p.token("one"), p.token("one", v1)
	f.Add(good)
	f.Add(old)
	f.Add(p.token("one", with{"exp": 1}))
	f.Add(p.token("two"))
	f.Add(strings.Replace(good, ".", "..", 1))
	f.Add(good + "=")
	f.Add(madeUp("one"))
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.AA")
	f.Add("e30.e30.e30")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := show(s, text)
		if sent := strings.TrimSpace(text); err == nil && sent != good && sent != old {
			t.Errorf("got in: %s", text)
		}
		if err != nil && !strings.HasPrefix(ruleOf(err), "entra.") && ruleOf(err) != "token.missing" {
			t.Errorf("refused without a rule: %v", err)
		}
	})
}

// FuzzClaims has the issuer sign any claims. What gets in is what another reader of
// JSON finds in them too, and only users pass for users.
func FuzzClaims(f *testing.F) {
	p := newProvider()
	i := newIssuer(f, p, p.inMemory())
	s, u := entra.NewServers(i, nil, owners(f, robot)), entra.NewUsers(i, []string{entra.Audience})
	for _, c := range []map[string]any{nil, v1, user, {"groups": []string{crew}}, {"roles": "Admin"}, {"hasgroups": true}, {"exp": nil}, {"aud": []string{"a", entra.Audience}}} {
		f.Add(mustJSON(p.claims(c)))
	}
	f.Add([]byte(`{"aud":"` + entra.Audience + `","aud":"x"}`))
	f.Add([]byte(`{"exp":1e300,"nbf":-1,"groups":[null,[]]}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"_claim_names":{"groups":"src1"}} `))
	f.Fuzz(func(t *testing.T, payload []byte) {
		text := signed(private("one"), `{"alg":"RS256","kid":"one"}`, string(payload))
		got, err := show(s, text)
		id, asUser := u.VerifyUser(ctx, text)
		if asUser != nil && !strings.HasPrefix(ruleOf(asUser), "entra.") {
			t.Errorf("refused without a rule: %v", asUser)
		}
		if asUser == nil && (err != nil || id.UserID == "") {
			t.Errorf("a user (%v) whose token opens nothing (%v)", id, err)
		}
		if err != nil {
			if !strings.HasPrefix(ruleOf(err), "entra.") || engine.CodeOf(err) != engine.CodeUnauthenticated {
				t.Errorf("refused with %v (%v)", err, engine.CodeOf(err))
			}
			return
		}
		var c map[string]any
		d := json.NewDecoder(bytes.NewReader(payload))
		d.UseNumber() // in what a claim holds that nobody reads, a number may be of any size
		if err := d.Decode(&c); err != nil {
			t.Fatal(err)
		}
		number, _ := c["exp"].(json.Number)
		exp, err := number.Float64()
		if err != nil {
			t.Errorf("the exp of %s: %v", payload, err)
		}
		if kind, _ := c["idtyp"].(string); asUser == nil && kind != "user" && (kind != "" || c["scp"] == nil || c["scp"] == "") {
			t.Errorf("passes for a user: %s", payload)
		}
		if list, ok := c["aud"].([]any); ok {
			for _, a := range list {
				if a == entra.Audience {
					c["aud"] = a
				}
			}
		}
		if c["aud"] != entra.Audience || time.Unix(int64(exp), 0).Before(time.Now().Add(-entra.Skew-time.Minute)) ||
			c["iss"] != p.url+"/"+tenant+"/v2.0" && c["iss"] != "https://sts.windows.net/"+tenant+"/" {
			t.Errorf("got in: %s", payload)
		}
		if err := got.May(engine.ActionHubSend, "chat"); err == nil && c["oid"] != robot && c["azp"] != robot && c["appid"] != robot && c["client_id"] != robot &&
			!strings.Contains(strings.ToLower(string(payload)), robot[:8]) {
			t.Errorf("may send: %s", payload)
		}
	})
}
