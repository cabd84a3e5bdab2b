package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
	"github.com/fanfare/fanfare/transport/websocket"
)

func serveCommand(w *world) *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Short: "Serve (what fanfare does without a command)",
		Long: `Serve runs a node until SIGTERM or SIGINT, which drain it: it takes no new
connections, tells its clients, lets events under way reach their handlers, and
ends with exit code 0. A second signal cuts. SIGHUP makes it read its file again:
one with mistakes, or one that is empty, was cut short or lacks what keeps clients
out, is refused, and the settings in force stay.

Without a key of its own a node uses the public development key, and listens on
loopback addresses only.`,
		Example: `  fanfare
  fanfare --config fanfare.yaml
  FANFARE_ACCESS_KEYS_PRIMARY=... fanfare --listen 0.0.0.0:8080`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &reloader{sources: s.sources(cmd, w)}
			c, warnings, err := r.load()
			if problems, ok := errors.AsType[config.Problems](err); ok {
				tell(w, problems)
				return &toldError{exitUsage}
			}
			if err != nil {
				return err
			}
			return serve(cmd.Context(), w, c, warnings, r)
		},
	}
	s.flags(cmd)
	return cmd
}

// errCut ends a node that did not get to end in order.
var errCut = errors.New("cut before everything had ended in order")

// serve runs a node until a signal, or ctx, ends it.
func serve(ctx context.Context, w *world, c *config.Config, warnings config.Problems, r *reloader) (err error) {
	level := new(slog.LevelVar)
	log, flush := newLogger(w.Stderr, c.Log, level)
	defer flush()
	warn(log, warnings)

	tracing, err := newTracing(ctx, w.getenv, log)
	if err != nil {
		return err
	}
	defer func() {
		// Its own few seconds, so that the spans of a drain that took all its time get out.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := tracing.shutdown(ctx); err != nil {
			log.Warn("the last traces were not exported", "error", err)
		}
	}()

	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w%s", err, hint(err))
	}
	defer listener.Close()
	addr := listener.Addr()
	if err := exposed(c, addr); err != nil {
		return &usageError{err: err}
	}
	r.addr = addr
	metrics := newMetrics()
	n, err := newNode(c, func(c *config.Config) string { return endpoint(c, addr) }, log, level, metrics, tracing)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	r.Use(c)

	var cert *certificate
	if c.TLS.CertFile != "" {
		if cert, err = newCertificate(c.TLS.CertFile, c.TLS.KeyFile, log); err != nil {
			return err
		}
	}
	failed := make(chan error, 2)
	var running sync.WaitGroup
	start := func(srv *http.Server, l net.Listener, what string) {
		running.Go(func() { // ends with srv
			serve := srv.Serve
			if srv.TLSConfig != nil {
				serve = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
			}
			if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	if cert == nil {
		listener = websocket.NewListener(listener)
		defer listener.Close()
	}
	front := n.admission(c, listener, cert != nil)
	if most := front.o.Places; most < c.Limits.UnauthenticatedConnections {
		log.Warn("fewer unauthenticated connections are allowed than was set: the process may not open more files", "rule", ruleUnauthenticated,
			"allowed", most, "set", c.Limits.UnauthenticatedConnections, "files", fileLimit())
	}
	doors := n.httpServer(c, front)
	if cert != nil {
		doors.TLSConfig = n.tlsConfig(cert)
	}
	var page *http.Server
	pageAddr := ""
	if c.Metrics.Listen != "" {
		l, err := net.Listen("tcp", c.Metrics.Listen)
		if err != nil {
			return fmt.Errorf("listen for metrics: %w%s", err, hint(err))
		}
		pageAddr = l.Addr().String()
		page = &http.Server{Handler: metrics.page(), ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute,
			IdleTimeout: 2 * time.Minute, ErrorLog: n.httpErrors(log.With("room", "metrics"))}
		start(page, l, "metrics")
	}
	start(doors, front, "serve")
	defer func() {
		doors.Close()
		if page != nil {
			page.Close()
		}
		running.Wait()
	}()

	banner(w.Stdout, w.Self, c, addr, pageAddr)
	limits := n.engine.Limits()
	log.Info("serving", "address", addr.String(), "tls", cert != nil, "connections", limits.Connections, "totalOutboundBytes", limits.TotalOutboundBytes)
	if w.Node != nil {
		w.Node(n)
	}

	for {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return n.drain(context.WithoutCancel(ctx), w, doors, front)
		case s := <-w.Signals:
			if s == syscall.SIGHUP {
				n.hangup(r, cert)
				continue
			}
			log.Info("draining; a second signal cuts", "signal", s.String())
			return n.drain(ctx, w, doors, front)
		}
	}
}

// exposed refuses the development key where strangers can use it. The settings
// that are read again may name another address than the one listened on, and a
// name may lead to any.
func exposed(c *config.Config, addr net.Addr) error {
	if tcp, ok := addr.(*net.TCPAddr); !c.Development() || ok && tcp.IP.IsLoopback() {
		return nil
	}
	return fmt.Errorf("the node listens on %s, which is not a loopback address, and the development key would open it; expected accessKeys.primary to be a key of your own", addr)
}

func warn(log *slog.Logger, warnings config.Problems) {
	for _, p := range warnings {
		log.Warn(p.Text, "where", p.Where, "key", p.Path)
	}
}

// hint says what to do about an address that cannot be listened on.
func hint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "; another program has it, perhaps another node: choose another one with --listen"
	case errors.Is(err, os.ErrPermission):
		return "; ports below 1024 are for privileged programs: choose another one with --listen"
	}
	return ""
}

// reloader reads the settings of a node that listens on addr, which is nil before
// the start.
type reloader struct {
	config.Reloader
	sources config.Sources
	addr    net.Addr
}

func (r *reloader) load() (*config.Config, config.Problems, error) {
	c, warnings, err := r.Load(r.sources)
	if err == nil && r.addr != nil {
		err = exposed(c, r.addr)
	}
	return c, warnings, err
}

// hangup answers SIGHUP: it reads the settings again and follows them. Settings
// with a mistake, or that are no safe replacement of those in force, change nothing.
func (n *node) hangup(r *reloader, cert *certificate) {
	c, warnings, err := r.load()
	if problems, ok := errors.AsType[config.Problems](err); ok {
		for _, p := range problems {
			n.log.Error(p.Text, "where", p.Where, "key", p.Path)
		}
		err = fmt.Errorf("%s", count(len(problems), "mistake"))
	}
	var restart []string
	if err == nil {
		warn(n.log, warnings)
		if cert != nil && c.TLS.CertFile != "" {
			err = cert.use(c.TLS.CertFile, c.TLS.KeyFile)
		}
	}
	if err == nil {
		restart, err = n.reload(c)
	}
	if err != nil {
		n.metrics.configReloads.WithLabelValues("failed").Inc()
		n.log.Error("the settings cannot be used; the last valid ones stay in force", "error", err)
		return
	}
	r.Use(c)
	n.metrics.configReloads.WithLabelValues("ok").Inc()
	if len(restart) > 0 {
		n.log.Warn("some settings have changed that take a restart", "keys", strings.Join(slices.Sorted(slices.Values(restart)), ", "))
	}
	n.log.Info("the settings were read again")
}

// linger is how long answers have, during a drain, to leave.
const linger = time.Second

// drain ends a node in order: nobody new comes in, clients are told, what is
// queued is flushed, events under way reach their handlers. It takes no longer
// than it may, and a second signal makes an end of it.
func (n *node) drain(ctx context.Context, w *world, doors *http.Server, front *admission) error {
	n.draining.Store(true)
	ctx, cancel := context.WithTimeoutCause(ctx, n.settings.Load().config.Drain.Timeout, errors.New("drain.timeout has passed"))
	defer cancel()
	over := make(chan struct{})
	defer close(over)
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	go func() { // ends with over
		for {
			select {
			case <-over:
				return
			case s := <-w.Signals:
				if s != syscall.SIGHUP {
					cut(errors.New("a second signal came"))
					return
				}
			}
		}
	}()

	// The listeners close at once; requests under way are waited for. Clients
	// that have come in are not the server's any more.
	stopped := make(chan error, 1)
	go func() { stopped <- doors.Shutdown(ctx) }()
	<-front.closed
	err := n.engine.Shutdown(ctx)
	served := make(chan struct{})
	go func() { // ends with the requests
		n.requests.end()
		close(served)
	}()
	select {
	case e := <-stopped:
		err = errors.Join(err, e)
	case <-served:
		// All have their answers. Who sends the rest of a body, or a request,
		// at leisure is not waited for.
		select {
		case e := <-stopped:
			err = errors.Join(err, e)
		case <-time.After(linger):
			doors.Close()
		}
	}
	if err != nil {
		n.log.Error("the node was cut", "error", context.Cause(ctx))
		return fmt.Errorf("%w: %w", errCut, context.Cause(ctx))
	}
	n.log.Info("the node has ended in order")
	return nil
}
