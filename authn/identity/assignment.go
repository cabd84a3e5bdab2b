package identity

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/fanfare/fanfare/engine"
)

// The principals that an assignment may be of.
const (
	PrincipalUser            = "user"
	PrincipalResourceAccount = "resourceAccount"
)

var principals = []string{PrincipalUser, PrincipalResourceAccount}

// MaxClientIDs is how many client applications one assignment may name.
const MaxClientIDs = 250

// assignmentKeys begins the keys of assignments in a store.
const assignmentKeys = "assignment."

// assignmentFormat begins the record of an assignment. The place of the principal's
// type among principals follows, and the client ids of 16 bytes each.
const assignmentFormat = 1

// Assignment returns which type of principal an object of an Entra tenant is and
// through which client applications it may exchange tokens. An error may be of
// engine.CodeInvalid (assignment.id) or engine.CodeNotFound (assignment.unknown).
func (u *Users) Assignment(ctx context.Context, tenant, object string) (principalType string, clientIDs []string, err error) {
	key, err := keyOfAssignment(tenant, object)
	if err != nil {
		return "", nil, err
	}
	value, _, err := u.store.Get(ctx, key)
	if err != nil {
		return "", nil, unassigned(tenant, object, "read an assignment", err)
	}
	if principalType, clientIDs = decodeAssignment(value); principalType == "" {
		return "", nil, failed("read an assignment", unreadable(key))
	}
	return principalType, clientIDs, nil
}

// Assign sets what [Users.Assignment] returns, and reports whether there was nothing
// before. The client ids are up to 250 UUIDs; one that comes twice is kept once. An
// error may be of engine.CodeInvalid (assignment.id, assignment.principal,
// assignment.clients).
func (u *Users) Assign(ctx context.Context, tenant, object, principalType string, clientIDs []string) (created bool, err error) {
	key, err := keyOfAssignment(tenant, object)
	if err != nil {
		return false, err
	}
	value, err := encodeAssignment(principalType, clientIDs)
	if err != nil {
		return false, err
	}
	for {
		_, revision, err := u.store.Get(ctx, key)
		if errors.Is(err, ErrNotFound) {
			revision, err = 0, nil
		}
		if err == nil {
			_, err = u.store.Put(ctx, key, value, revision)
		}
		switch {
		case err == nil:
			return revision == 0, nil
		case !errors.Is(err, ErrConflict):
			return false, failed("write an assignment", err)
		}
	}
}

// Unassign removes an assignment. Errors are those of [Users.Assignment].
func (u *Users) Unassign(ctx context.Context, tenant, object string) error {
	key, err := keyOfAssignment(tenant, object)
	if err != nil {
		return err
	}
	for {
		_, revision, err := u.store.Get(ctx, key)
		if err == nil {
			err = u.store.Delete(ctx, key, revision)
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, ErrConflict):
			return unassigned(tenant, object, "remove an assignment", err)
		}
	}
}

// keyOfAssignment tells neither the tenant nor the object.
func keyOfAssignment(tenant, object string) (string, error) {
	of := [2]string{tenant, object}
	for i, id := range of {
		parsed, ok := parseUUID(id)
		if !ok {
			target := [...]string{"tenantId", "objectId"}[i]
			return "", invalid("assignment.id", target, "The %s is %s: expected a UUID, such as 00000000-0000-4000-8000-000000000000.", target, excerpt(id))
		}
		of[i] = parsed.String()
	}
	return assignmentKeys + keyEncoding.EncodeToString(hashOf("assignment", of[:]...)), nil
}

// parseUUID takes the one form that Entra has, in letters of either case.
func parseUUID(text string) (uuid.UUID, bool) {
	if len(text) != 36 {
		return uuid.UUID{}, false
	}
	id, err := uuid.Parse(text)
	return id, err == nil
}

func encodeAssignment(principalType string, clientIDs []string) ([]byte, error) {
	kind := slices.Index(principals, principalType)
	if kind < 0 {
		return nil, invalid("assignment.principal", "principalType", "The type of the principal is %s: expected %s.", excerpt(principalType), strings.Join(principals, " or "))
	}
	if n := len(clientIDs); n > MaxClientIDs {
		return nil, invalid("assignment.clients", "clientIds", "%d client ids were given: expected up to %d.", n, MaxClientIDs)
	}
	value := []byte{assignmentFormat, byte(kind)}
	seen := make(map[uuid.UUID]bool, len(clientIDs))
	for _, text := range clientIDs {
		id, ok := parseUUID(text)
		if !ok {
			return nil, invalid("assignment.clients", "clientIds", "The client id %s is no UUID: expected one such as 00000000-0000-4000-8000-000000000000.", excerpt(text))
		}
		if !seen[id] {
			seen[id] = true
			value = append(value, id[:]...)
		}
	}
	return value, nil
}

// decodeAssignment is the reverse of encodeAssignment. The type is empty of a record
// that is in no known format.
func decodeAssignment(value []byte) (principalType string, clientIDs []string) {
	const head = 2
	if len(value) < head || value[0] != assignmentFormat || int(value[1]) >= len(principals) || (len(value)-head)%len(uuid.UUID{}) != 0 {
		return "", nil
	}
	for id := range slices.Chunk(value[head:], len(uuid.UUID{})) {
		clientIDs = append(clientIDs, uuid.UUID(id).String())
	}
	return principals[value[1]], clientIDs
}

func unassigned(tenant, object, what string, err error) error {
	if !errors.Is(err, ErrNotFound) {
		return failed(what, err)
	}
	e := engine.Errorf(engine.CodeNotFound, "assignment.unknown", "Nothing is assigned to the object %s of the tenant %s.", excerpt(object), excerpt(tenant))
	e.Target = "objectId"
	return e
}
