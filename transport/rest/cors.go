package rest

import (
	"net/http"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// What pages of other origins are told (Fetch, section 3.3: "CORS protocol").
const (
	corsMethods = "DELETE, GET, HEAD, POST, PUT" // those that some operation has
	corsMaxAge  = "3600"                         // seconds that a browser may keep the answer

	// corsExposed are the headers of replies that a page may read.
	corsExposed = "Accept-Encoding, Allow, Api-Supported-Versions, Retry-After, Www-Authenticate, X-Ms-Client-Request-Id, X-Ms-Error-Code"

	maxCORSHeaders = 64 // that a page may ask for
)

// preflight is the operation's name of a browser's question whether a page may send a
// request.
const preflight = "Preflight"

// crossOrigin tells the browser of a page of another origin whether the page may send
// requests and read their replies, refusals included, and reports whether the request
// was only the question (Fetch, section 4.8: "CORS-preflight fetch"). The question
// comes without credentials, so it is answered before any are looked at. Cookies and
// client certificates are never allowed: who calls is proven by a header.
func (q *request) crossOrigin() (asked bool, err error) {
	origins, header := q.r.Header.Values("Origin"), q.w.Header()
	method := q.r.Header.Get("Access-Control-Request-Method")
	asked = q.r.Method == http.MethodOptions && len(origins) > 0 && method != ""
	if asked {
		q.operation = preflight
	}
	if q.door.allowOrigin == nil {
		if asked {
			return true, forbiddenOrigin(origins)
		}
		return false, nil
	}
	header.Add("Vary", "Origin") // also where there is none: caches must not mix the replies up
	if len(origins) != 1 || !q.door.allowOrigin(origins[0]) {
		if asked {
			return true, forbiddenOrigin(origins)
		}
		return false, nil
	}
	header.Set("Access-Control-Allow-Origin", origins[0])
	if !asked {
		header.Set("Access-Control-Expose-Headers", corsExposed)
		return false, nil
	}
	header.Add("Vary", "Access-Control-Request-Headers")
	names, err := requestedHeaders(q.r.Header.Values("Access-Control-Request-Headers"))
	if err != nil {
		return true, err
	}
	header.Set("Access-Control-Allow-Methods", corsMethods)
	if names != "" {
		header.Set("Access-Control-Allow-Headers", names)
	}
	header.Set("Access-Control-Max-Age", corsMaxAge)
	return true, nil
}

func forbiddenOrigin(origins []string) error {
	return engine.Errorf(engine.CodeForbidden, "cors.allowedOrigins",
		"Pages of the origin %s may not call this service: expected an origin that cors.allowedOrigins names.", excerpt(strings.Join(origins, ", ")))
}

// requestedHeaders returns the headers that a page wants to send. All are allowed: SDKs
// send some of their own, and messages bear metadata in headers of any name.
func requestedHeaders(values []string) (string, error) {
	var names []string
	for _, value := range values {
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.TrimSpace(name); name == "" {
				continue
			}
			if !isToken(name) || len(names) == maxCORSHeaders {
				return "", engine.Errorf(engine.CodeInvalid, "cors.headers",
					"Access-Control-Request-Headers is not usable: expected at most %d names of headers, with commas between them.", maxCORSHeaders)
			}
			names = append(names, name)
		}
	}
	return strings.Join(names, ", "), nil
}
