package rest

import (
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// operation is one thing that the data plane does.
type operation struct {
	name    string // as the API's description has it, without its prefix
	method  string
	path    string
	action  engine.Action // what the caller must be allowed; empty: no credentials
	success int
	missing string // the error code of a 404, where one is known
	params  []*param
	run     func(*call) (any, error)
}

// operations is the data plane.
var operations = []operation{
	{"GetServiceStatus", "HEAD", "/api/health", "", 200, "", nil, nothing},

	{"GenerateClientToken", "POST", "/api/hubs/{hub}/:generateToken", engine.ActionGenerateToken, 200, "",
		[]*param{userIDParam, role, minutesToExpire, groupParam, clientType}, generateToken},

	{"SendToAll", "POST", "/api/hubs/{hub}/:send", engine.ActionHubSend, 202, "",
		[]*param{excluded, filterParam, messageTTL}, sendToAll},
	{"SendToGroup", "POST", "/api/hubs/{hub}/groups/{group}/:send", engine.ActionGroupSend, 202, "",
		[]*param{excluded, filterParam, messageTTL}, sendToGroup},
	{"SendToUser", "POST", "/api/hubs/{hub}/users/{userId}/:send", engine.ActionUserSend, 202, "",
		[]*param{filterParam, messageTTL}, sendToUser},
	{"SendToConnection", "POST", "/api/hubs/{hub}/connections/{connectionId}/:send", engine.ActionConnectionSend, 202, "",
		[]*param{messageTTL}, sendToConnection},

	{"ConnectionExists", "HEAD", "/api/hubs/{hub}/connections/{connectionId}", engine.ActionConnectionRead, 200,
		"Warning.Connection.NotExisted", nil, connectionExists},
	{"GroupExists", "HEAD", "/api/hubs/{hub}/groups/{group}", engine.ActionGroupRead, 200,
		"Warning.Group.NotExisted", nil, groupExists},
	{"UserExists", "HEAD", "/api/hubs/{hub}/users/{userId}", engine.ActionUserRead, 200,
		"Warning.User.NotExisted", nil, userExists},

	{"CloseConnection", "DELETE", "/api/hubs/{hub}/connections/{connectionId}", engine.ActionConnectionWrite, 204, "",
		[]*param{reason}, closeConnection},
	{"CloseAllConnections", "POST", "/api/hubs/{hub}/:closeConnections", engine.ActionConnectionWrite, 204, "",
		[]*param{excluded, reason}, closeAll},
	{"CloseGroupConnections", "POST", "/api/hubs/{hub}/groups/{group}/:closeConnections", engine.ActionConnectionWrite, 204, "",
		[]*param{excluded, reason}, closeGroup},
	{"CloseUserConnections", "POST", "/api/hubs/{hub}/users/{userId}/:closeConnections", engine.ActionConnectionWrite, 204, "",
		[]*param{excluded, reason}, closeUser},

	{"AddConnectionToGroup", "PUT", "/api/hubs/{hub}/groups/{group}/connections/{connectionId}", engine.ActionGroupWrite, 200,
		"Error.Connection.NotExisted", nil, addToGroup},
	{"RemoveConnectionFromGroup", "DELETE", "/api/hubs/{hub}/groups/{group}/connections/{connectionId}", engine.ActionGroupWrite, 204, "",
		nil, removeFromGroup},
	{"RemoveConnectionFromAllGroups", "DELETE", "/api/hubs/{hub}/connections/{connectionId}/groups", engine.ActionGroupWrite, 204, "",
		nil, removeFromAllGroups},
	{"AddUserToGroup", "PUT", "/api/hubs/{hub}/users/{userId}/groups/{group}", engine.ActionGroupWrite, 200, "",
		nil, addUserToGroup},
	{"RemoveUserFromGroup", "DELETE", "/api/hubs/{hub}/users/{userId}/groups/{group}", engine.ActionGroupWrite, 204, "",
		nil, removeUserFromGroup},
	{"RemoveUserFromAllGroups", "DELETE", "/api/hubs/{hub}/users/{userId}/groups", engine.ActionGroupWrite, 204, "",
		nil, removeUserFromAllGroups},
	{"AddConnectionsToGroups", "POST", "/api/hubs/{hub}/:addToGroups", engine.ActionGroupWrite, 200, "",
		nil, addToGroups},
	{"RemoveConnectionsFromGroups", "POST", "/api/hubs/{hub}/:removeFromGroups", engine.ActionGroupWrite, 200, "",
		nil, removeFromGroups},
	{"ListConnectionsInGroup", "GET", "/api/hubs/{hub}/groups/{group}/connections", engine.ActionGroupRead, 200, "",
		[]*param{maxPageSize, top, continuationToken}, listGroup},

	{"GrantPermission", "PUT", "/api/hubs/{hub}/permissions/{permission}/connections/{connectionId}", engine.ActionConnectionWrite, 200,
		"Info.Connection.NotExisted", []*param{targetName}, grantPermission},
	{"RevokePermission", "DELETE", "/api/hubs/{hub}/permissions/{permission}/connections/{connectionId}", engine.ActionConnectionWrite, 204, "",
		[]*param{targetName}, revokePermission},
	{"CheckPermission", "HEAD", "/api/hubs/{hub}/permissions/{permission}/connections/{connectionId}", engine.ActionConnectionRead, 200,
		"Info.Connection.NotExisted", []*param{targetName}, checkPermission},
}

func nothing(*call) (any, error) { return nil, nil }

// Sends.

func sendToAll(c *call) (any, error) {
	p, o, err := c.message()
	if err != nil {
		return nil, err
	}
	return nil, c.hub().SendToAll(c.r.Context(), p, o)
}

func sendToGroup(c *call) (any, error) {
	p, o, err := c.message()
	if err != nil {
		return nil, err
	}
	return nil, c.hub().SendToGroup(c.r.Context(), c.group, p, o)
}

func sendToUser(c *call) (any, error) {
	p, o, err := c.message()
	if err != nil {
		return nil, err
	}
	return nil, c.hub().SendToUser(c.r.Context(), c.user, p, o)
}

func sendToConnection(c *call) (any, error) {
	p, o, err := c.message()
	if err != nil {
		return nil, err
	}
	return nil, c.hub().SendToConn(c.r.Context(), c.conn, p, o)
}

// message reads what a send sends: the filter is judged before the body is read.
func (c *call) message() (engine.Payload, *engine.SendOptions, error) {
	o := &engine.SendOptions{Excluded: c.excluded(), TTL: c.ttl}
	text, _, err := c.query.one(filterParam)
	if err != nil {
		return engine.Payload{}, nil, err
	}
	if o.Parsed, err = engine.ParseFilter(text); err != nil {
		return engine.Payload{}, nil, err
	}
	p, err := c.body.payload()
	if err != nil {
		return engine.Payload{}, nil, err
	}
	o.Metadata, err = metadata(c.r.Header)
	return p, o, err
}

func (c *call) excluded() []engine.ConnID {
	var ids []engine.ConnID
	for _, id := range c.query.all(excluded) {
		ids = append(ids, engine.ConnID(id))
	}
	return ids
}

// Existence.

func connectionExists(c *call) (any, error) {
	ok, err := c.hub().ConnExists(c.r.Context(), c.conn)
	return nil, found(ok, err, "Connection", string(c.conn))
}

func groupExists(c *call) (any, error) {
	ok, err := c.hub().GroupExists(c.r.Context(), c.group)
	return nil, found(ok, err, "Group", string(c.group))
}

func userExists(c *call) (any, error) {
	ok, err := c.hub().UserExists(c.r.Context(), c.user)
	return nil, found(ok, err, "User", string(c.user))
}

func found(ok bool, err error, what, name string) error {
	if err != nil || ok {
		return err
	}
	return &engine.Error{
		Code: engine.CodeNotFound, Rule: "target.exists", Target: what,
		Message: what + " `" + name + "` is not found.",
	}
}

// Ends.

func closeConnection(c *call) (any, error) {
	why, err := c.reason()
	if err != nil {
		return nil, err
	}
	return nil, c.hub().CloseConn(c.r.Context(), c.conn, why)
}

func closeAll(c *call) (any, error) {
	why, err := c.reason()
	if err != nil {
		return nil, err
	}
	return nil, c.hub().CloseAll(c.r.Context(), why, c.excluded()...)
}

func closeGroup(c *call) (any, error) {
	why, err := c.reason()
	if err != nil {
		return nil, err
	}
	return nil, c.hub().CloseGroup(c.r.Context(), c.group, why, c.excluded()...)
}

func closeUser(c *call) (any, error) {
	why, err := c.reason()
	if err != nil {
		return nil, err
	}
	return nil, c.hub().CloseUser(c.r.Context(), c.user, why, c.excluded()...)
}

func (c *call) reason() (string, error) {
	why, _, err := c.query.one(reason)
	return why, err
}

// Membership.

func addToGroup(c *call) (any, error) {
	return nil, c.hub().AddToGroup(c.r.Context(), c.group, c.conn)
}

func removeFromGroup(c *call) (any, error) {
	return nil, c.hub().RemoveFromGroup(c.r.Context(), c.group, c.conn)
}

func removeFromAllGroups(c *call) (any, error) {
	return nil, c.hub().RemoveFromAllGroups(c.r.Context(), c.conn)
}

func addUserToGroup(c *call) (any, error) {
	return nil, c.hub().AddUserToGroup(c.r.Context(), c.group, c.user)
}

func removeUserFromGroup(c *call) (any, error) {
	return nil, c.hub().RemoveUserFromGroup(c.r.Context(), c.group, c.user)
}

func removeUserFromAllGroups(c *call) (any, error) {
	return nil, c.hub().RemoveUserFromAllGroups(c.r.Context(), c.user)
}

func addToGroups(c *call) (any, error) {
	groups, filter, err := c.body.bulk()
	if err != nil {
		return nil, err
	}
	return nil, c.hub().AddToGroups(c.r.Context(), groups, filter)
}

func removeFromGroups(c *call) (any, error) {
	groups, filter, err := c.body.bulk()
	if err != nil {
		return nil, err
	}
	return nil, c.hub().RemoveFromGroups(c.r.Context(), groups, filter)
}

// Listing.

// maxPage is the default and the most members on a page.
const maxPage = 200

// memberPage is a page of a listing ("GroupMemberPagedValues").
type memberPage struct {
	Value    []member `json:"value"`
	NextLink *string  `json:"nextLink"`
}

type member struct {
	ConnectionID engine.ConnID  `json:"connectionId"`
	UserID       *engine.UserID `json:"userId"`
}

func listGroup(c *call) (any, error) {
	size, err := c.query.integer(maxPageSize, 1, maxPage, maxPage)
	if err != nil {
		return nil, err
	}
	limit, err := c.query.integer(top, 1, math.MaxInt32, math.MaxInt32)
	if err != nil {
		return nil, err
	}
	var after engine.ConnID
	if token, ok, err := c.query.one(continuationToken); err != nil {
		return nil, err
	} else if ok {
		if after, err = c.h.pages.open(token, c.hubName, c.group); err != nil {
			return nil, err
		}
	}
	members, more, err := c.hub().ListGroup(c.r.Context(), c.group, after, int(min(size, limit)))
	if err != nil {
		return nil, err
	}
	page := &memberPage{Value: make([]member, len(members))}
	for i, m := range members {
		page.Value[i].ConnectionID = m.ConnID
		if m.UserID != "" {
			page.Value[i].UserID = &members[i].UserID
		}
	}
	if left := limit - int32(len(members)); more && left > 0 {
		link := c.nextLink(members[len(members)-1].ConnID, left)
		page.NextLink = &link
	}
	return page, nil
}

// nextLink returns the URL of the page behind after. It names the api-version,
// since SDKs ask for it as it is, and what is left of the caller's total.
func (c *call) nextLink(after engine.ConnID, left int32) string {
	q := "?api-version=" + apiVersions[len(apiVersions)-1]
	if size, ok, _ := c.query.one(maxPageSize); ok {
		q += "&maxpagesize=" + url.QueryEscape(size)
	}
	if _, ok, _ := c.query.one(top); ok {
		q += "&top=" + strconv.Itoa(int(left))
	}
	q += "&continuationToken=" + url.QueryEscape(c.h.pages.seal(c.hubName, c.group, after))
	return c.endpoint() + c.path + q
}

// Permissions.

func parsePermission(s string) (engine.Permission, error) {
	for _, p := range []engine.Permission{engine.SendToGroup, engine.JoinLeaveGroup} {
		if strings.EqualFold(s, p.String()) || s == strconv.Itoa(int(p)) {
			return p, nil
		}
	}
	return 0, engine.Errorf(engine.CodeInvalid, "rest.permission",
		"There is no permission %s; there are sendToGroup and joinLeaveGroup.", excerpt(s))
}

// target returns the group that a permission is about.
func (c *call) target() (engine.GroupName, error) {
	s, ok, err := c.query.one(targetName)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", engine.Errorf(engine.CodeInvalid, "rest.targetName", "targetName is missing: it names the group that the permission is for.")
	}
	g, err := engine.ParseGroupName(s)
	if err != nil {
		return "", engine.Errorf(engine.CodeInvalid, "rest.targetName",
			"targetName is %s, expected a group's name: 1 to %d characters, not only white space.", excerpt(s), engine.MaxGroupName)
	}
	return g, nil
}

func grantPermission(c *call) (any, error) {
	g, err := c.target()
	if err != nil {
		return nil, err
	}
	return nil, c.hub().Grant(c.r.Context(), c.conn, c.permission, g)
}

func revokePermission(c *call) (any, error) {
	g, err := c.target()
	if err != nil {
		return nil, err
	}
	return nil, c.hub().Revoke(c.r.Context(), c.conn, c.permission, g)
}

func checkPermission(c *call) (any, error) {
	g, err := c.target()
	if err != nil {
		return nil, err
	}
	ok, err := c.hub().Permitted(c.r.Context(), c.conn, c.permission, g)
	return nil, found(ok, err, "Connection", string(c.conn))
}

// Tokens.

// clientPaths are where the kinds of client connect, which is what their tokens
// are for. SDKs spell the kinds in any case.
var clientPaths = map[string]string{
	"default":  "/client/hubs/",
	"mqtt":     "/clients/mqtt/hubs/",
	"socketio": "/clients/socketio/hubs/",
}

type tokenReply struct {
	Token string `json:"token"`
}

func generateToken(c *call) (any, error) {
	minutes, err := c.query.integer(minutesToExpire, 1, math.MaxInt32, 60)
	if err != nil {
		return nil, err
	}
	kind, ok, err := c.query.one(clientType)
	if err != nil {
		return nil, err
	}
	if !ok {
		kind = "default"
	}
	path := clientPaths[strings.ToLower(kind)]
	if path == "" {
		return nil, invalid(clientType.name, "There is no clientType %s; there are Default, MQTT and SocketIO.", excerpt(kind))
	}
	id := engine.Identity{Roles: c.query.all(role), Scheme: "AccessToken"}
	user, _, err := c.query.one(userIDParam)
	if err != nil {
		return nil, err
	}
	if user != "" {
		if id.UserID, err = engine.ParseUserID(user); err != nil {
			return nil, err
		}
	}
	for _, name := range c.query.all(groupParam) {
		g, err := engine.ParseGroupName(name)
		if err != nil {
			return nil, err
		}
		id.Groups = append(id.Groups, g)
	}
	if c.h.tokens == nil {
		return nil, engine.Errorf(engine.CodeUnsupported, "rest.tokens", "This node issues no client access tokens.")
	}
	lifetime := time.Duration(math.MaxInt64)
	if most := int64(math.MaxInt64 / time.Minute); int64(minutes) <= most {
		lifetime = time.Duration(minutes) * time.Minute
	}
	token, err := c.h.tokens.IssueClientToken(c.r.Context(), id, c.endpoint()+path+url.PathEscape(string(c.hubName)), lifetime)
	if err != nil {
		return nil, err
	}
	c.w.Header().Set("Cache-Control", "no-store")
	return tokenReply{token}, nil
}
