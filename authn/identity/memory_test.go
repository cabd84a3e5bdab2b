package identity_test

import (
	"testing"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/identity/storetest"
)

func TestMemoryStore(t *testing.T) {
	storetest.TestStore(t, func(*testing.T) identity.Store { return identity.NewMemoryStore() })
}
