package entra_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/engine"
)

// story is an issuer, its provider and a door, in virtual time.
type story struct {
	*provider
	t      *testing.T
	issuer *entra.Issuer
	door   *entra.Servers
	log    *bytes.Buffer
}

func tell(t *testing.T, o func(*entra.IssuerOptions), play func(s *story)) {
	rsaKeys() // outside virtual time
	synctest.Test(t, func(t *testing.T) {
		s := &story{provider: newProvider(), t: t, log: new(bytes.Buffer)}
		options := s.inMemory()
		options.Logger = slog.New(slog.NewTextHandler(s.log, nil))
		if o != nil {
			o(options)
		}
		s.issuer = newIssuer(t, s.provider, options)
		s.door = entra.NewServers(s.issuer, nil, owners(t, robot))
		play(s)
	})
}

// in shows a token that must be let in.
func (s *story) in(what, token string) {
	s.t.Helper()
	if _, err := show(s.door, token); err != nil {
		s.t.Errorf("%s: %v", what, err)
	}
}

// out shows one that must not.
func (s *story) out(what, token string, code engine.Code, rule string) {
	s.t.Helper()
	if _, err := show(s.door, token); ruleOf(err) != rule || engine.CodeOf(err) != code {
		s.t.Errorf("%s: got %v (%v); want %s", what, err, engine.CodeOf(err), rule)
	}
}

// madeUp is a token that names a key that nobody has.
func madeUp(kid string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	return b64([]byte(`{"alg":"RS256","kid":"`+kid+`"}`)) + "." + b64([]byte("{}")) + ".AA"
}

// Tokens of both versions pass, for each name that the service goes by. Those of
// another tenant do not, nor those that no key of the issuer has signed; for a key
// that it does not have, it is asked again once.
func TestIdentity07Validator(t *testing.T) {
	tell(t, nil, func(s *story) {
		names := []string{"api://fanfare", "dddddddd-0000-4000-8000-000000000001"}
		s.door = entra.NewServers(s.issuer, names, owners(t, robot))
		v2 := with{"iss": s.url + "/" + tenant + "/v2.0", "ver": "2.0"}
		for _, version := range []with{v1, v2} {
			for _, name := range names {
				s.in(fmt.Sprint(version["ver"], " for ", name), s.token("one", version, with{"aud": name}))
			}
		}

		good := with{"aud": names[0]}
		s.out("another tenant's tid, 1.0", s.token("one", good, v1, with{"tid": stranger}), engine.CodeUnauthenticated, "entra.tenant")
		s.out("another tenant's tid, 2.0", s.token("one", good, with{"tid": stranger}), engine.CodeUnauthenticated, "entra.tenant")
		s.out("another tenant, 1.0", s.token("one", good, v1, with{"tid": stranger, "iss": "https://sts.windows.net/" + stranger + "/"}), engine.CodeUnauthenticated, "entra.issuer")
		s.out("another tenant, 2.0", s.token("one", good, with{"tid": stranger, "iss": s.url + "/" + stranger + "/v2.0"}), engine.CodeUnauthenticated, "entra.issuer")
		for alg, key := range map[jwt.SigningMethod]any{
			jwt.SigningMethodNone:  jwt.UnsafeAllowNoneSignatureType,
			jwt.SigningMethodHS256: x509.MarshalPKCS1PublicKey(&private("one").PublicKey),
		} {
			forged := jwt.NewWithClaims(alg, jwt.MapClaims(s.claims(good)))
			forged.Header["kid"] = "one"
			text, err := forged.SignedString(key)
			if err != nil {
				s.t.Fatal(err)
			}
			s.out(alg.Alg(), text, engine.CodeUnauthenticated, "entra.alg")
		}

		time.Sleep(11 * time.Second) // the issuer may be asked again
		before := s.requests(keysPath)
		for range 10 {
			s.out("an unknown key", s.token("two", good), engine.CodeUnauthenticated, "entra.kid")
		}
		if n := s.requests(keysPath) - before; before != 1 || n != 1 {
			s.t.Errorf("the keys were read %d times, and %d times for one that is unknown", before, n)
		}
	})
}

// A key that is new is found, however often others asked for nonsense before; one
// that is gone opens nothing any more.
func TestRotation(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.in("the first key", s.token("one"))
		s.setKeys("one", "two")
		s.out("a new key within the pause", s.token("two"), engine.CodeUnauthenticated, "entra.kid")
		time.Sleep(11 * time.Second)
		s.in("a new key", s.token("two"))
		s.in("the old key", s.token("one"))
		if n := s.requests(keysPath); n != 2 {
			t.Errorf("the keys were read %d times; want 2", n)
		}

		// Nobody asks for a key that is gone; the hourly reading finds out.
		s.setKeys("two")
		s.in("a key that is gone, for now", s.token("one"))
		time.Sleep(time.Hour + time.Second)
		s.in("the key that stays", s.token("two"))
		synctest.Wait()
		s.out("a key that is gone", s.token("one"), engine.CodeUnauthenticated, "entra.kid")
		s.in("the key that stays", s.token("two"))

		// Under a storm of made-up ids a new key takes no longer than it should.
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
					}
					show(s.door, madeUp(fmt.Sprint(n)))
				}
			})
		}
		time.Sleep(25 * time.Second)
		s.setKeys("two", "three")
		since := time.Now()
		for {
			if _, err := show(s.door, s.token("three")); err == nil {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(since); took > 30*time.Second {
			t.Errorf("a new key was found after %s", took)
		}
		close(stop)
		wg.Wait()
	})
}

// However many made-up key ids come, at whatever time: the issuer is asked at
// most once in ten seconds, and honest callers notice nothing.
func TestFlood(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"healthy": nil,
		"down":    down,
		"slow": func(http.ResponseWriter, *http.Request) bool {
			time.Sleep(3 * time.Second)
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			tell(t, nil, func(s *story) {
				s.in("before", s.token("one"))
				s.breakWith(answer)
				const minutes, attackers = 2, 20
				var tried atomic.Int64
				good := s.token("one")
				end := time.Now().Add(minutes * time.Minute)
				var wg sync.WaitGroup
				for a := range attackers {
					wg.Go(func() {
						for n := 0; time.Now().Before(end); n++ {
							if _, err := show(s.door, madeUp(fmt.Sprint(a, "-", n))); err == nil {
								t.Error("a made-up key opens the door")
							}
							tried.Add(1)
							time.Sleep(313 * time.Millisecond)
						}
					})
				}
				for time.Now().Before(end) {
					before := time.Now()
					s.in("an honest caller", good)
					if took := time.Since(before); took > 0 {
						t.Errorf("an honest caller waited %s", took)
					}
					time.Sleep(time.Second)
				}
				wg.Wait()
				s.mu.Lock()
				defer s.mu.Unlock()
				for i := 1; i < len(s.times); i++ {
					if gap := s.times[i].Sub(s.times[i-1]); gap < 7*time.Second { // 10 s between beginnings, and 3 s more or less for discovery
						t.Errorf("the keys were asked for after %s", gap)
					}
				}
				if n := s.asked[discoveryPath]; n < 6*minutes-3 || n > 6*minutes+1 {
					t.Errorf("%d readings in %d minutes", n, minutes)
				}
				t.Logf("%d made-up ids, %d readings", tried.Load(), s.asked[discoveryPath])
			})
		})
	}
}

// Many who come at once, before there are any keys, share one reading.
func TestFirstUse(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.breakWith(func(http.ResponseWriter, *http.Request) bool {
			time.Sleep(time.Second)
			return false
		})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { s.in("one of many", s.token("one")) })
		}
		wg.Wait()
		if n := s.requests(keysPath); n != 1 {
			t.Errorf("the keys were read %d times", n)
		}
	})
}

// Through an outage the last keys serve, for as long as was said and no longer.
func TestOutage(t *testing.T) {
	tell(t, func(o *entra.IssuerOptions) { o.KeepKeys = 6 * time.Hour }, func(s *story) {
		s.in("before", s.token("one"))
		began := time.Now()
		s.breakWith(down)
		for time.Since(began) < 6*time.Hour-10*time.Minute {
			time.Sleep(9 * time.Minute)
			s.in("during the outage", s.token("one"))
		}
		synctest.Wait()
		s.out("a key that nobody can ask about", s.token("two"), engine.CodeUnavailable, "entra.keys")
		time.Sleep(time.Until(began.Add(6*time.Hour + time.Second)))
		s.out("when the keys are too old", s.token("one"), engine.CodeUnavailable, "entra.stale")
		if stats := s.issuer.Stats(); stats.Keys != 1 || !stats.Read.Equal(began) || stats.Failed == 0 || stats.Readings != stats.Failed+1 {
			t.Errorf("%+v", stats)
		}
		s.breakWith(nil)
		time.Sleep(10 * time.Second)
		s.in("after", s.token("one"))
		for _, want := range []string{"the last ones stay in use", "answered 503", "the issuer's keys were read"} {
			if !strings.Contains(s.log.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, s.log)
			}
		}
	})
}

// A node may start while its issuer is out of reach: it says so, refuses what it
// cannot judge, and needs no second start.
func TestStartWithoutIssuer(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.breakWith(down)
		if err := s.issuer.Refresh(s.t.Context()); err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("Refresh: %v", err)
		}
		if !strings.Contains(s.log.String(), "its tokens cannot be judged") {
			t.Errorf("the log:\n%s", s.log)
		}
		s.out("without keys", s.token("one"), engine.CodeUnavailable, "entra.keys")
		s.breakWith(nil)
		s.out("within the pause", s.token("one"), engine.CodeUnavailable, "entra.keys")
		time.Sleep(10 * time.Second)
		s.in("after it", s.token("one"))
		if err := s.issuer.Refresh(s.t.Context()); err != nil {
			t.Errorf("Refresh: %v", err)
		}
	})
}

// An issuer that never answers holds nobody for longer than ten seconds, and no
// longer than the caller's own patience.
func TestSilence(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
			<-r.Context().Done()
			return true
		})
		began := time.Now()
		s.out("a patient caller", s.token("one"), engine.CodeUnavailable, "entra.keys")
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("the caller waited %s", took)
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		_, err := s.door.Authorize(ctx, engine.ServerRequest{Header: map[string][]string{"Authorization": {"Bearer " + s.token("one")}}})
		if !errors.Is(err, context.DeadlineExceeded) || engine.CodeOf(err) != engine.CodeUnavailable {
			t.Errorf("an impatient caller: %v", err)
		}
		began = time.Now()
		s.issuer.Close() // ends the reading that goes on
		if took := time.Since(began); took != 0 {
			t.Errorf("Close took %s", took)
		}
		if err := s.issuer.Refresh(s.t.Context()); err == nil {
			t.Error("a closed issuer reads its keys")
		}
	})
}

// Only so many wait for an issuer that is slow; the others are told to come again.
func TestWaitingIsBounded(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.breakWith(func(http.ResponseWriter, *http.Request) bool {
			time.Sleep(4 * time.Second)
			return false
		})
		var at, later atomic.Int64
		var wg sync.WaitGroup
		began := time.Now()
		for range 1500 {
			wg.Go(func() {
				_, err := show(s.door, madeUp("x"))
				switch took := time.Since(began); {
				case ruleOf(err) == "entra.keys" && engine.CodeOf(err) == engine.CodeUnavailable && took == 0:
					at.Add(1)
				case ruleOf(err) == "entra.kid" && took == 8*time.Second:
					later.Add(1)
				default:
					t.Errorf("after %s: %v", took, err)
				}
			})
		}
		wg.Wait()
		if at.Load() != 500 || later.Load() != 1000 {
			t.Errorf("%d were refused at once, %d waited; want 500 and 1000", at.Load(), later.Load())
		}
	})
}

// What an issuer may say of itself, and what of it is not believed, over TLS.
func TestDocuments(t *testing.T) {
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("another host was asked")
	}))
	defer elsewhere.Close()
	fill := func(path string, n int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != path {
				return false
			}
			io.WriteString(w, `{"x":"`+strings.Repeat("x", n)+`"}`)
			return true
		}
	}
	redirect := func(path string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == path {
				http.Redirect(w, r, elsewhere.URL, http.StatusFound)
			}
			return r.URL.Path == path
		}
	}
	for name, test := range map[string]struct {
		change func(*provider)
		says   string
	}{
		"another issuer":            {func(p *provider) { p.document = with{"issuer": "https://evil.example.com/" + tenant + "/v2.0"} }, "is that of the issuer"},
		"another tenant":            {func(p *provider) { p.document = with{"issuer": p.url + "/" + stranger + "/v2.0"} }, "is that of the issuer"},
		"every tenant":              {func(p *provider) { p.document = with{"issuer": p.url + "/{tenantid}/v2.0"} }, "is that of the issuer"},
		"no issuer":                 {func(p *provider) { p.document = with{"issuer": ""} }, "is that of the issuer"},
		"keys in clear":             {func(p *provider) { p.document = with{"jwks_uri": "http://login.example.com/keys"} }, "expected an https:// URL"},
		"keys in clear on loopback": {func(p *provider) { p.document = with{"jwks_uri": "http://127.0.0.1:1/keys"} }, "expected an https:// URL"},
		"keys in a file":            {func(p *provider) { p.document = with{"jwks_uri": "file:///etc/passwd"} }, "expected an https:// URL"},
		"keys behind a password":    {func(p *provider) { p.document = with{"jwks_uri": "https://u:p@login.example.com/keys"} }, "expected an https:// URL"},
		"keys at a machine's own":   {func(p *provider) { p.document = with{"jwks_uri": "https://169.254.169.254/keys"} }, "link-local"},
		"no keys' address":          {func(p *provider) { p.document = with{"jwks_uri": nil} }, "expected an https:// URL"},
		"discovery redirected":      {func(p *provider) { p.breakWith(redirect(discoveryPath)) }, "answered 302"},
		"keys redirected":           {func(p *provider) { p.breakWith(redirect(keysPath)) }, "answered 302"},
		"a large document":          {func(p *provider) { p.breakWith(fill(discoveryPath, 256<<10)) }, "more than 262144 bytes"},
		"large keys":                {func(p *provider) { p.breakWith(fill(keysPath, 256<<10)) }, "more than 262144 bytes"},
		"no JSON": {func(p *provider) {
			p.breakWith(func(w http.ResponseWriter, _ *http.Request) bool { io.WriteString(w, "<html>"); return true })
		}, "is not the JSON"},
		"many keys": {func(p *provider) {
			for i := range 101 {
				p.keys[fmt.Sprint(i)] = jwk(fmt.Sprint(i), &private("one").PublicKey)
			}
		}, "at most 100"},
		"no keys": {func(p *provider) { p.setKeys() }, "none of the issuer's keys"},
		"keys of no use": {func(p *provider) {
			p.setKeys()
			change := func(name string, members map[string]any) {
				k := jwk(name, &private("one").PublicKey)
				for m, v := range members {
					k[m] = v
				}
				p.keys[name] = k
			}
			change("a", with{"kty": "oct", "k": "c2VjcmV0"})
			change("b", with{"use": "enc"})
			change("c", with{"alg": "RS512"})
			change("d", with{"n": "AQAB"})
			change("e", with{"n": "!"})
			change("f", with{"issuer": "https://sts.windows.net/" + stranger + "/"})
			change("", nil)
			change(strings.Repeat("k", 257), nil)
			p.keys["h"] = "a string"
			p.keys["i"] = with{"kty": "EC", "kid": "i", "crv": "P-256", "x": "AA", "y": "AA"}
		}, "none of the issuer's keys"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider()
			o := p.serve(t)
			test.change(p)
			i := newIssuer(t, p, o)
			if err := i.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v; want %q", err, test.says)
			}
			_, err := show(entra.NewServers(i, nil, owners(t, robot)), p.token("one"))
			if ruleOf(err) != "entra.keys" || engine.CodeOf(err) != engine.CodeUnavailable {
				t.Errorf("a token: %v", err)
			}
		})
	}
	t.Run("an issuer that is not trusted", func(t *testing.T) {
		p := newProvider()
		p.serve(t)
		if err := newIssuer(t, p, nil).Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a key for this tenant, or for all", func(t *testing.T) {
		p := newProvider()
		o := p.serve(t)
		p.setKeys("one", "two", "three")
		p.keys["two"].(map[string]any)["issuer"] = p.url + "/{tenantid}/v2.0"
		delete(p.keys["three"].(map[string]any), "issuer")
		i := newIssuer(t, p, o)
		s := entra.NewServers(i, nil, owners(t, robot))
		for _, key := range []string{"one", "two", "three"} {
			if _, err := show(s, p.token(key)); err != nil {
				t.Errorf("%s: %v", key, err)
			}
		}
		if got := i.Stats(); got.Keys != 3 || got.Readings != 1 || got.Failed != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// Nothing goes on running, neither after a reading nor after the end.
func TestNothingStays(t *testing.T) {
	p := newProvider()
	o := p.serve(t)
	before := runtime.NumGoroutine()
	i, err := entra.NewIssuer(p.url, tenant, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.Close()
	i.Close()
	// The server's side of the sockets takes a moment to notice.
	tick, deadline := time.NewTicker(time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for runtime.NumGoroutine() > before {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}
