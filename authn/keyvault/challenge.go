package keyvault

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// guard stands between the library and a vault. A vault that is asked without a
// token says for which resource it wants one; the guard sees to it that this is a
// resource that the vault may have one for, whoever answers there. Otherwise a
// host that is allowed as a vault could ask for a token that opens something else.
//
// The library compares the resource with the vault's domain too, but for the
// hosts that Azure does not own that has to be off. It also takes challenges for
// well-formed, and ends the process at one that is not: what it gets is written
// anew.
type guard struct {
	base policy.Transporter
	uri  URI
}

// parameter matches a parameter of a challenge (RFC 9110 section 11.2).
var parameter = regexp.MustCompile(`([A-Za-z_]+)="([^"\\]*)"`)

// Do implements policy.Transporter.
func (g *guard) Do(r *http.Request) (*http.Response, error) {
	resp, err := g.base.Do(r)
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); untrusted {
		return nil, refused{err}
	}
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	challenge := resp.Header.Get("WWW-Authenticate")
	resp.Header.Del("WWW-Authenticate")
	if challenge == "" {
		return resp, nil
	}
	resource, err := g.resource(challenge)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	// The authority is the identity's own matter; the library wants to read one.
	resp.Header.Set("WWW-Authenticate", `Bearer authorization="https://authority/tenant", resource="`+resource+`"`)
	return resp, nil
}

// refused is an error that the library does not try again.
type refused struct{ error }

// NonRetriable is what the library looks for.
func (refused) NonRetriable() {}

// resource returns what the vault wants a token for. scope goes before resource.
func (g *guard) resource(challenge string) (string, error) {
	scheme, rest, _ := strings.Cut(challenge, " ")
	if !strings.EqualFold(scheme, "Bearer") || len(challenge) > 4096 {
		return "", refused{fmt.Errorf("the vault asks for %.32q; expected Bearer", scheme)}
	}
	found := map[string]string{}
	for _, m := range parameter.FindAllStringSubmatch(rest, -1) {
		found[strings.ToLower(m[1])] = m[2]
	}
	text := found["scope"]
	if text == "" {
		text = found["resource"]
	}
	text = strings.TrimSuffix(text, "/.default")
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(text, " ,=") {
		return "", refused{fmt.Errorf("the vault does not say for which resource it wants a token; expected one such as https://%s", domains[0])}
	}
	asked, _ := strings.CutSuffix(strings.ToLower(u.Hostname()), ".")
	vault := (&url.URL{Host: g.uri.host}).Hostname()
	switch {
	case g.uri.Azure() && asked == g.uri.domain:
	case !g.uri.Azure() && (asked == vault || slices.Contains(domains, asked)):
	case !g.uri.Azure() && strings.Contains(asked, ".") && strings.HasSuffix(vault, "."+asked):
	default:
		return "", refused{fmt.Errorf("the vault %s wants a token for %.128q; it gets one for a vault's own domain only", g.uri.host, text)}
	}
	return text, nil
}
