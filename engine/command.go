package engine

import "github.com/fanfare/fanfare/engine/filter"

// TargetKind says what a [Target] names.
type TargetKind uint8

// The kinds of target.
const (
	TargetAll TargetKind = iota
	TargetGroup
	TargetUser
	TargetConn
	// TargetWatchers are those who watch the state of the group Name,
	TargetWatchers
	// TargetStated those who have state in it.
	TargetStated
)

// Target names the connections that a command is about: all of a hub, or those
// of one group, one user, or a single one.
type Target struct {
	Kind TargetKind
	// Name is the group, user or connection; empty for TargetAll.
	Name string
}

// Verb says what a [Command] does to its target.
type Verb uint8

// The verbs.
const (
	VerbSend      Verb = iota // hand Message to the target
	VerbClose                 // end the target, Text being the reason
	VerbExists                // count the target
	VerbJoin                  // put the target into Groups
	VerbLeave                 // take the target out of Groups
	VerbLeaveAll              // take the target out of all its groups
	VerbList                  // list the target in order of id, from After on
	VerbGrant                 // allow Permission on Groups[0]
	VerbRevoke                // deny Permission on Groups[0]
	VerbPermitted             // count the target if Permission on Groups[0] is allowed
	VerbState                 // collect the target's state in the group that it names
	VerbClaim                 // end the target in favour of a new one: User, Subprotocol, TakeOver
)

// Command is one verb as data, so that it can be carried to other nodes. It is
// immutable once made.
type Command struct {
	Hub     HubName
	Verb    Verb
	Target  Target
	Message *Message
	Groups  []GroupName
	// Excluded connections are left out.
	Excluded []ConnID
	// Filter is an OData filter's text; empty for none.
	Filter string
	// parsed is Filter where this process has parsed it; nil where it came from
	// another one.
	parsed     *filter.Filter
	Permission Permission
	Text       string
	After      ConnID
	Limit      int

	User        UserID
	Subprotocol string
	TakeOver    bool
}

// Answer is what one node says to a [Command].
type Answer struct {
	// Count is how many connections of this node the command was about.
	Count int
	// Members are those listed, in order of id, at most Limit+1.
	Members []Member
	// States are in order of connection id, at most Limit.
	States []GroupState
	// Err is a failure that is not simply an absent target.
	Err *Error
}

// Member is one connection of a listing.
type Member struct {
	ConnID ConnID
	UserID UserID
}
