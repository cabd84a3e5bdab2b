package rest

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
)

// param is a query parameter that an operation takes.
type param struct {
	name string
	many bool // may be repeated
}

// The query parameters of the data plane.
var (
	apiVersion        = &param{name: "api-version"}
	clientType        = &param{name: "clientType"}
	continuationToken = &param{name: "continuationToken"}
	excluded          = &param{name: "excluded", many: true}
	filterParam       = &param{name: "filter"}
	groupParam        = &param{name: "group", many: true}
	maxPageSize       = &param{name: "maxpagesize"}
	messageTTL        = &param{name: "messageTtlSeconds"}
	minutesToExpire   = &param{name: "minutesToExpire"}
	reason            = &param{name: "reason"}
	role              = &param{name: "role", many: true}
	targetName        = &param{name: "targetName"}
	top               = &param{name: "top"}
	userIDParam       = &param{name: "userId"}
)

// apiVersions are the versions of the API, the latest last. They differ in what
// they had not yet got, which is no reason to refuse anything: all are served
// alike, as the service's emulator does.
var apiVersions = []string{"2021-10-01", "2022-11-01", "2023-07-01", "2024-01-01", "2024-12-01"}

// query holds the parameters of a request that its operation takes, decoded.
type query []queryValue

type queryValue struct {
	*param
	value string
}

// parseQuery reads raw by the rules of forms: both + and %20 are a blank. Names
// compare without case. Parameters that the operation does not take are ignored.
func parseQuery(raw string, takes []*param) (query, error) {
	var q query
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		name, value, _ := strings.Cut(pair, "=")
		name, err := decodeQuery(name)
		if err != nil {
			return nil, err
		}
		p := apiVersion
		if !strings.EqualFold(name, p.name) {
			i := slices.IndexFunc(takes, func(p *param) bool { return strings.EqualFold(name, p.name) })
			if i < 0 {
				continue
			}
			p = takes[i]
		}
		if value, err = decodeQuery(value); err != nil {
			return nil, err
		}
		q = append(q, queryValue{p, value})
	}
	return q, nil
}

func decodeQuery(s string) (string, error) {
	s = strings.ReplaceAll(s, "+", " ")
	if strings.IndexByte(s, '%') >= 0 {
		var err error
		if s, err = percentDecode(s, "query"); err != nil {
			return "", err
		}
	}
	if !utf8.ValidString(s) {
		return "", engine.Errorf(engine.CodeInvalid, "rest.query", "The query holds %s, which is not valid UTF-8.", excerpt(s))
	}
	return s, nil
}

// all returns the values of p in order.
func (q query) all(p *param) []string {
	var values []string
	for _, v := range q {
		if v.param == p {
			values = append(values, v.value)
		}
	}
	return values
}

// one returns the value of p and whether there is one. Two are an error: which
// of them was meant is anyone's guess.
func (q query) one(p *param) (value string, ok bool, err error) {
	for _, v := range q {
		if v.param != p {
			continue
		}
		if ok {
			return "", false, invalid(p.name, "%s is given more than once; at most one is allowed.", p.name)
		}
		value, ok = v.value, true
	}
	return value, ok, nil
}

// integer returns the value of p, which must lie in [from, to], or def if there
// is none.
func (q query) integer(p *param, from, to, def int32) (int32, error) {
	s, ok, err := q.one(p)
	if !ok || err != nil {
		return def, err
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < int64(from) || n > int64(to) {
		return 0, invalid(p.name, "Invalid %s: %s is not an integer from %d to %d.", p.name, excerpt(s), from, to)
	}
	return int32(n), nil
}

// checkVersion checks the api-version. None means the latest: links to a next
// page are followed by SDKs as they are.
func (q query) checkVersion() error {
	v, ok, err := q.one(apiVersion)
	if err != nil {
		return err
	}
	if ok && !slices.Contains(apiVersions, v) {
		return invalid(apiVersion.name, "The api-version %s is not supported; supported are %s.", excerpt(v), supportedVersions[0])
	}
	return nil
}

// invalid makes the refusal of a parameter, named after it.
func invalid(name, format string, args ...any) *engine.Error {
	e := engine.Errorf(engine.CodeInvalid, "rest."+name, format, args...)
	e.Target = name
	return e
}
