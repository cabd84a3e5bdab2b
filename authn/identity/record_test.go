package identity_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/engine"
)

// What this version keeps, later ones must be able to read.
func TestRecords(t *testing.T) {
	s := newFrailStore()
	put := func(key string, value ...byte) {
		t.Helper()
		if _, err := s.Put(t.Context(), key, value, 0); err != nil {
			t.Fatal(err)
		}
	}
	encode := base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString
	plain, bo, client := uuid.UUID{15: 1}, uuid.UUID{15: 2}, uuid.UUID{15: 3}
	ofBo := sha256.Sum256([]byte("fanfare: name of a user\x00bo"))
	ofAssignment := sha256.Sum256([]byte("fanfare: assignment\x00" + tenant + "\x00" + object))
	// HKDF of the access key that tests call primary, as Python's hmac computes it.
	ofPrimary, err := hex.DecodeString("70fc46c86b58a643dc4c9a472800f5eadb525333c221c6e143967831acad5674")
	if err != nil {
		t.Fatal(err)
	}
	put("user."+encode(plain[:]), 1, 0x81, 0x01)
	put("user."+encode(bo[:]), slices.Concat([]byte{2}, ofBo[:], []byte{7})...)
	put("name."+encode(ofBo[:]), append([]byte{1}, bo[:]...)...)
	put("assignment."+encode(ofAssignment[:]), append([]byte{1, 1}, client[:]...)...)
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	signs := time.Now().Unix()
	value := []byte{1, 0, 0, 0, byte(signs >> 32), byte(signs >> 24), byte(signs >> 16), byte(signs >> 8), byte(signs)}
	put("key.f", slices.Concat(value, ofPrimary, der)...)

	key, err := identity.NewKey(private)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := identity.OpenKeys(t.Context(), s, nil, primary)
	if err != nil || len(keys.Current()) != 1 || keys.Current()[0].ID() != key.ID() {
		t.Fatalf("%v, %v", keys, err)
	}
	u := newUsers(t, s, keys.Current()...)
	if got := named(t, u, "bo"); got != engine.UserID("8:acs:"+resource+"_"+bo.String()) {
		t.Errorf("bo is %s", got)
	}
	for id, want := range map[uuid.UUID]float64{plain: 129, bo: 7} {
		if gen := part(t, issue(t, u, engine.UserID("8:acs:"+resource+"_"+id.String())), 1)["gen"]; gen != want {
			t.Errorf("generation %v of %s; want %v", gen, id, want)
		}
	}
	if principal, clients, err := u.Assignment(t.Context(), tenant, object); err != nil || principal != "resourceAccount" || !slices.Equal(clients, []string{client.String()}) {
		t.Errorf("%s, %v, %v", principal, clients, err)
	}
}
