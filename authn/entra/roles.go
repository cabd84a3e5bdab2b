package entra

import (
	"regexp"
	"slices"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// The roles that Azure has built in and that are worth assigning here.
const (
	RoleOwner  = "Web PubSub Service Owner"
	RoleReader = "Web PubSub Service Reader"
	// RoleCommunicationOwner is about the users that the service keeps, and about
	// nothing else: the other two do not include them.
	RoleCommunicationOwner = "Communication and Email Service Owner"
)

// Bounds of what may be set.
const (
	maxName    = 512 // Azure's own bound for a role's name
	maxActions = 100
)

// What precedes the names of data actions, by whose they are.
const (
	webPubSub     = "Microsoft.SignalRService/WebPubSub/"
	communication = "Microsoft.Communication/CommunicationServices/"
)

// actions are the data actions of Web PubSub that guard something here.
var actions = []engine.Action{
	engine.ActionGenerateToken, engine.ActionHubSend, engine.ActionGroupSend, engine.ActionUserSend, engine.ActionConnectionSend,
	engine.ActionConnectionRead, engine.ActionConnectionWrite, engine.ActionGroupRead, engine.ActionGroupWrite, engine.ActionUserRead,
}

// elsewhere are data actions of Azure that guard nothing here. A role may name
// them, so that definitions can be carried over.
var elsewhere = []engine.Action{"auth/accessKey/action", "auth/accessToken/action", "livetrace/read", "livetrace/write"}

// ofUsers are the actions on the users that the service keeps, who are of no hub.
var ofUsers = []engine.Action{engine.ActionIdentityRead, engine.ActionIdentityWrite, engine.ActionIdentityToken}

// inFull returns the name of an action in Azure's manner, provider and all.
func inFull(a engine.Action) string {
	if slices.Contains(ofUsers, a) {
		return communication + string(a)
	}
	return webPubSub + string(a)
}

// Roles are roles and who has which of them where. They are put together by one
// goroutine, and not changed once [NewServers] has them.
type Roles struct {
	roles       map[string]*role    // by name in lower case, and by Azure's id
	assignments map[string][]*grant // by the principal's id, in the form of canonical
}

// role is a name for several data actions.
type role struct {
	name    string
	actions []engine.Action
}

// isOfUsers reports whether no hub has anything that the role is about.
func (r *role) isOfUsers() bool {
	return !slices.ContainsFunc(r.actions, func(a engine.Action) bool { return !slices.Contains(ofUsers, a) })
}

// grant is one role in one hub, or in all.
type grant struct {
	role *role
	hub  engine.HubName
	all  bool
}

// allows reports whether the action is the role's. What is of no hub is in no
// single one either, whichever the caller is asked about.
func (g *grant) allows(action engine.Action, hub engine.HubName) bool {
	return (g.all || g.hub == hub && !slices.Contains(ofUsers, action)) && slices.Contains(g.role.actions, action)
}

// NewRoles returns three of Azure's own roles, which nobody has yet.
func NewRoles() *Roles {
	r := &Roles{roles: make(map[string]*role), assignments: make(map[string][]*grant)}
	for _, builtIn := range []struct{ name, id, dataActions string }{
		{RoleOwner, "12cf5a90-567b-43ae-8102-96cf46c7d9b4", webPubSub + "*"},
		{RoleReader, "bfb1c7d2-fb1a-466b-b2ba-aee63b92deaf", webPubSub + "*/read"},
		{RoleCommunicationOwner, "09976791-48a7-449e-bb21-39d1a415f350", communication + "*"},
	} {
		made := &role{builtIn.name, matching(builtIn.dataActions)}
		r.roles[strings.ToLower(builtIn.name)], r.roles[builtIn.id] = made, made
	}
	return r
}

// Define adds a role. dataActions are names of data actions, in full or as of
// what follows Microsoft.SignalRService/WebPubSub/ or, of those on users,
// Microsoft.Communication/CommunicationServices/. In them * stands for anything,
// as in Azure's role definitions, so "*" is every action of both; letter case
// makes no difference. An error is an *engine.Error of engine.CodeInvalid.
func (r *Roles) Define(name string, dataActions ...string) error {
	key := strings.ToLower(name)
	switch {
	case strings.TrimSpace(name) == "" || len(name) > maxName:
		return invalid("entra.definition", "A role's name has 1 to %d characters.", maxName)
	case r.roles[key] != nil:
		return invalid("entra.definition", "There is a role %s already.", excerpt(name))
	case len(dataActions) == 0 || len(dataActions) > maxActions:
		return invalid("entra.definition", "The role %s has %d data actions; expected 1 to %d, such as hub/send/action.", excerpt(name), len(dataActions), maxActions)
	}
	made := &role{name: name}
	for _, pattern := range dataActions {
		found := matching(pattern)
		if len(found) == 0 {
			return invalid("entra.dataaction", "%s is no data action; expected one such as hub/send/action, or a pattern such as group/*.", excerpt(pattern))
		}
		made.actions = append(made.actions, found...)
	}
	r.roles[key] = made
	return nil
}

// matching returns the data actions that a pattern names.
func matching(pattern string) (found []engine.Action) {
	if len(pattern) > maxName {
		return nil
	}
	// Between its asterisks a pattern is taken literally.
	var b strings.Builder
	for i, part := range strings.Split(pattern, "*") {
		if i > 0 {
			b.WriteString(".*")
		}
		b.WriteString(regexp.QuoteMeta(part))
	}
	re, err := regexp.Compile("(?i)^(?:" + b.String() + ")$")
	if err != nil {
		return nil
	}
	for _, a := range slices.Concat(actions, elsewhere, ofUsers) {
		if re.MatchString(string(a)) || re.MatchString(inFull(a)) {
			found = append(found, a)
		}
	}
	return found
}

// Assign gives a role, by its name or Azure's id of it, to a principal: an object
// id, an application's id, a group or an app role. hub is the hub in which it
// counts; "*" means every one. Actions on users are of no hub, so a role gives
// them with "*" alone. An error is an *engine.Error of engine.CodeInvalid, whose
// Target is the parameter at fault.
func (r *Roles) Assign(principal, roleName, hub string) error {
	g := &grant{role: r.roles[strings.ToLower(roleName)], all: hub == "*"}
	if principal == "" || len(principal) > maxName || strings.TrimSpace(principal) != principal {
		e := invalid("entra.principal", "A principal's id has 1 to %d characters and no blanks around it.", maxName)
		e.Target = "principalId"
		return e
	}
	if g.role == nil {
		e := invalid("entra.role", "There is no role %s; expected %s, %s, %s or one that was defined.",
			excerpt(roleName), RoleOwner, RoleReader, RoleCommunicationOwner)
		e.Target = "role"
		return e
	}
	if !g.all {
		var err error
		if g.hub, err = engine.ParseHubName(hub); err != nil {
			e := invalid("entra.hub", "%s is not a hub; expected a hub's name, or * for every hub.", excerpt(hub))
			e.Target = "hub"
			return e
		}
		if g.role.isOfUsers() {
			e := invalid("entra.hub", "The role %s is about users, who are of no hub, so it gives nothing in hub %s; expected *.", excerpt(g.role.name), g.hub)
			e.Target = "hub"
			return e
		}
	}
	id, _ := canonical(principal)
	r.assignments[id] = append(r.assignments[id], g)
	return nil
}

// of returns what the assignments give to a caller; see the package's page for
// what stands for whom. In a tenant of Entra ID what is an id and what an app role
// can be told by its form.
func (r *Roles) of(c *claims, tenant bool) (grants []*grant) {
	give := func(name string, isID bool) {
		form, guid := canonical(name)
		if !tenant || guid == isID {
			grants = append(grants, r.assignments[form]...)
		}
	}
	give(c.object, true)
	for _, id := range c.groups {
		give(id, true)
	}
	if c.app() {
		give(c.application, true)
	}
	for _, name := range c.roles {
		give(name, false)
	}
	return grants
}

// canonical returns the one form in which an id is compared, and whether it is a
// GUID.
func canonical(id string) (form string, guid bool) {
	if isGUID(id) {
		return strings.ToLower(id), true
	}
	return id, false
}

// isGUID reports whether s has the form of the ids of Entra ID.
func isGUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	digits := 0
	for i := range len(s) {
		if c := s[i]; c-'0' < 10 || c|0x20-'a' < 6 {
			digits++
		}
	}
	return digits == 32
}

func invalid(rule, format string, args ...any) *engine.Error {
	return engine.Errorf(engine.CodeInvalid, rule, format, args...)
}
