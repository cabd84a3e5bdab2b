package engine

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

type thing struct{ name string }

func (t *thing) key() string { return t.name }

// TestIndex compares an index with a map, while it grows, shrinks and grows again.
func TestIndex(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var x index[*thing]
	have := map[string]*thing{}
	for round, most := range []int{3, 50, 2000, 0, 40, 0} {
		for step := range 4 * (most + 50) {
			name := fmt.Sprint(random.IntN(most + 100))
			h := hashOf(name)
			if got := x.find(h, name); got != have[name] {
				t.Fatalf("round %d, step %d: find(%s) = %v, want %v", round, step, name, got, have[name])
			}
			switch e := have[name]; {
			case e != nil && (len(have) > most || random.IntN(4) == 0):
				if !x.remove(h, e) || x.remove(h, e) {
					t.Fatalf("round %d, step %d: remove(%s) failed, or removed it twice", round, step, name)
				}
				delete(have, name)
			case e == nil && len(have) < most:
				have[name] = &thing{name}
				x.insert(h, have[name])
			}
			if x.remove(h, &thing{name}) {
				t.Fatalf("another thing of the name %s was removed", name)
			}
		}
		for name, e := range have {
			if x.find(hashOf(name), name) != e {
				t.Fatalf("round %d: %s is lost", round, name)
			}
			if most == 0 && !x.remove(hashOf(name), e) {
				t.Fatalf("round %d: %s cannot be removed", round, name)
			}
		}
		if most == 0 {
			clear(have)
			if x.used != 0 || x.slots != nil {
				t.Fatalf("round %d: an empty index keeps %d slots", round, len(x.slots))
			}
		}
		if len(x.slots) > 8 && 4*x.used < len(x.slots) {
			t.Fatalf("round %d: %d slots for %d things", round, len(x.slots), x.used)
		}
	}
}
