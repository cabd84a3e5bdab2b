package identity_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/engine"
)

// FuzzVerify shows any text for a token. Only the genuine ones get in; nothing
// panics, and no refusal is without a rule.
func FuzzVerify(f *testing.F) {
	u := newUsers(f, identity.NewMemoryStore(), derive(f, 1))
	ann := create(f, u)
	good := issue(f, u, ann)
	f.Add(good)
	f.Add(good + "=")
	f.Add(strings.Replace(good, ".", "..", 1))
	f.Add(good[:len(good)-1])
	f.Add("e30.e30.e30")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := u.Verify(t.Context(), text)
		if err == nil && text != good {
			t.Errorf("got in: %s", text)
		}
		if err != nil && !strings.HasPrefix(ruleOf(err), "user.") && ruleOf(err) != "token.missing" {
			t.Errorf("refused without a rule: %v", err)
		}
	})
}

// FuzzClaims has a key sign any claims. What gets in is what another reader of JSON
// finds in them too. Key and user are the same in all processes that fuzz.
func FuzzClaims(f *testing.F) {
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{7}, 32))
	if err != nil {
		f.Fatal(err)
	}
	key, err := identity.NewKey(private)
	if err != nil {
		f.Fatal(err)
	}
	store := identity.NewMemoryStore()
	if _, err := store.Put(f.Context(), "user.00000000000000000000000000", []byte{1, 1}, 0); err != nil {
		f.Fatal(err)
	}
	const ann engine.UserID = "8:acs:" + resource + "_00000000-0000-0000-0000-000000000000"
	u := newUsers(f, store, key)
	claims, err := json.Marshal(part(f, issue(f, u, ann), 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(claims)
	f.Add([]byte(strings.Replace(string(claims), `"gen":1`, `"gen":1,"gen":1`, 1)))
	f.Add([]byte(strings.Replace(string(claims), `"gen":1`, `"gen":1e0`, 1)))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"exp":1e300,"iat":-1,"gen":99999999999999999999}`))
	header, err := json.Marshal(map[string]any{"alg": "ES256", "kid": key.ID(), "typ": identity.TokenType})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
		p, err := u.Verify(t.Context(), text+"."+base64.RawURLEncoding.EncodeToString(signAlike(t, private, text)))
		if err != nil {
			if !strings.HasPrefix(ruleOf(err), "user.") {
				t.Errorf("refused without a rule: %v", err)
			}
			return
		}
		var c map[string]any // by the letter, which names of a struct's fields are not
		d := json.NewDecoder(bytes.NewReader(payload))
		d.UseNumber()
		if err := d.Decode(&c); err != nil {
			t.Fatal(err)
		}
		number := func(name string) float64 {
			n, _ := c[name].(json.Number)
			f, err := n.Float64()
			if err != nil {
				t.Errorf("the %s of %s: %v", name, payload, err)
			}
			return f
		}
		if id, _ := c["skypeid"].(string); "8:"+id != string(ann) || p.ID != ann || number("gen") != 1 || number("exp") < float64(time.Now().Add(-time.Minute).Unix()) {
			t.Errorf("got in: %s", payload)
		}
	})
}

// signAlike signs a text the same way each time (RFC 6979), so that what the fuzzer
// sees covered depends on its input alone; else it goes after inputs for nothing.
func signAlike(t *testing.T, private *ecdsa.PrivateKey, text string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(text))
	der, err := private.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	var numbers struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &numbers); err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	numbers.R.FillBytes(signature[:32])
	numbers.S.FillBytes(signature[32:])
	return signature
}
