package identity

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
)

// record is what is kept of a user: the generation of tokens that counts, and the
// hash of the name that it was made for, if there is one.
type record struct {
	generation uint64
	name       []byte // nil, or of hashLen bytes
}

// A record begins with the number of its format. The hash of the name, where there
// is one, comes before the generation.
const (
	formatPlain = 1
	formatNamed = 2
)

func (r record) encode() []byte {
	if r.name == nil {
		return binary.AppendUvarint([]byte{formatPlain}, r.generation)
	}
	value := append(make([]byte, 0, 2+hashLen+binary.MaxVarintLen64), formatNamed)
	return binary.AppendUvarint(append(value, r.name...), r.generation)
}

// decodeRecord is the reverse of encode. The name points into value.
func decodeRecord(value []byte) (r record, ok bool) {
	rest, named := bytes.CutPrefix(value, []byte{formatNamed})
	switch {
	case named && len(rest) > hashLen:
		r.name, rest = rest[:hashLen], rest[hashLen:]
	case len(value) > 1 && value[0] == formatPlain:
		rest = value[1:]
	default:
		return record{}, false
	}
	generation, n := binary.Uvarint(rest)
	r.generation = generation
	return r, n == len(rest)
}

// find returns a user's record.
func (u *Users) find(ctx context.Context, key string) (r record, revision uint64, err error) {
	value, revision, err := u.store.Get(ctx, key)
	if err != nil {
		return record{}, 0, err
	}
	r, ok := decodeRecord(value)
	if !ok {
		return record{}, 0, unreadable(key)
	}
	return r, revision, nil
}

func unreadable(key string) error { return fmt.Errorf("the record %s is in no known format", key) }
