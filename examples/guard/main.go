// Command guard is a service of one's own, which sends text messages, behind the
// same guard that stands before the endpoints for users and tokens: callers sign
// their requests with an access key, or show a token of Microsoft Entra ID. Azure's
// own SDKs for text messages can call it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/entra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "guard:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("guard", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() {
		fmt.Fprint(out, "guard sends text messages for whoever has its access key, or a token of Entra ID.\n\n"+
			"  go run ./examples/guard [flags]\n\n"+
			"ACCESS_KEY is the access key, in base64; a new one is made and printed if there is none.\n\n")
		flags.PrintDefaults()
	}
	listen := flags.String("listen", "127.0.0.1:8092", "address to serve")
	cert := flags.String("cert", "", "certificate in PEM, for https; SDKs show tokens over nothing else")
	key := flags.String("key", "", "private key of the certificate, in PEM")
	tenant := flags.String("tenant", "", "tenant of Entra ID whose tokens count, a GUID; none: access keys alone")
	authority := flags.String("authority", entra.Authority, "where the tenant is")
	senders := map[string]bool{}
	flags.Func("allow", "object id of one of the tenant who may send; may be given several times", func(id string) error {
		senders[strings.ToLower(id)] = true
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("found %q; expected flags alone, see -help", flags.Arg(0))
	case (*cert == "") != (*key == ""):
		return errors.New("found one of -cert and -key; expected both, or none for http")
	case *tenant == "" && len(senders) > 0:
		return errors.New("found -allow without -tenant; expected the tenant that the object id is of")
	}

	accessKey, shown := accesskey.Generate(), true
	if text := os.Getenv("ACCESS_KEY"); text != "" {
		var err error
		if accessKey, err = accesskey.ParseKey(text); err != nil {
			return err
		}
		shown = false
	}
	// The scheme that stands first speaks for both when a caller shows neither. Keys
	// can be exchanged while the service runs: see accesskey.Ring.
	schemes := []authn.Authorizer{accesskey.NewSigned(accesskey.NewRing(accessKey, accesskey.Key{}), nil)}
	if *tenant != "" {
		issuer, err := entra.NewIssuer(*authority, *tenant, nil)
		if err != nil {
			return err
		}
		defer issuer.Close()
		// What a caller may do is for this service to say, and not for roles in hubs.
		audiences := entra.EitherSlash(entra.AudienceCommunication)
		schemes = append(schemes, entra.NewServers(issuer, audiences, entra.NewRoles()))
	}
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	service := &texts{callers: authn.Servers(schemes...), senders: senders, outbox: newOutbox(out), log: log}

	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	scheme, secret := "http", "<ACCESS_KEY>"
	if *cert != "" {
		scheme = "https"
	}
	if shown {
		secret = accessKey.Reveal()
	}
	fmt.Fprintf(out, "connection string: endpoint=%s://%s/;accesskey=%s\n", scheme, l.Addr(), secret)
	server := &http.Server{Handler: service.Handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, MaxHeaderBytes: 64 << 10}
	served := make(chan error, 1)
	go func() { // ends with the server
		if *cert != "" {
			served <- server.ServeTLS(l, *cert, *key)
		} else {
			served <- server.Serve(l)
		}
	}()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return server.Shutdown(ctx)
}
