package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

func subCommand(w *world) *cobra.Command {
	var to reach
	var user, transport, protocol string
	var groups []string
	var most int
	cmd := &cobra.Command{
		Use:   "sub --hub HUB [--group GROUP]...",
		Short: "Connect as a client and print what it receives, one message a line",
		Long: `Sub connects as a client, is put into the groups, and prints each message it
receives as one line of JSON. What else happens, such as the loss of the
connection and its recovery, goes to standard error. It ends with SIGINT.

With a reliable protocol nothing is missed while a connection is lost and
recovered, which is tried for half a minute; then, and with the others at once, a
new connection is made, and what is sent meanwhile is missed.

In a line, data is text as a string, JSON as it is, and all else in base64;
dataType says which. There is no group in what was sent to the user, the
connection or the whole hub.`,
		Example: `  fanfare sub --hub chat --group lobby
  fanfare sub --hub chat --user ann | jq .data`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch transport {
			case "ws":
			case "quic", "webtransport", "grpc":
				return usagef(cmd, "--transport: %s is not in this build of Fanfare; expected ws", transport)
			default:
				return usagef(cmd, "--transport: found %q; expected ws", transport)
			}
			if !slices.Contains(protocols, protocol) {
				return usagef(cmd, "--protocol: found %q; expected %s", protocol, strings.Join(protocols, ", "))
			}
			s, err := to.find(cmd, w)
			if err != nil {
				return err
			}
			claims := token.Claims{}
			if claims.User, err = parseUser(cmd, user); err != nil {
				return err
			}
			if claims.Groups, err = parseGroups(cmd, groups); err != nil {
				return err
			}
			if most < 0 {
				return usagef(cmd, "--count: found %d; expected 0 or more", most)
			}
			return s.subscribe(cmd.Context(), w, claims, protocol+".webpubsub.azure.v1", most)
		},
	}
	to.flags(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&groups, "group", nil, "a `group` to be in; may be repeated")
	f.StringVar(&user, "user", "", "the client's `user` (default: none)")
	f.StringVar(&transport, "transport", "ws", "the `door` to use: ws")
	f.StringVar(&protocol, "protocol", protocols[0], "the `subprotocol` to speak: "+strings.Join(protocols, ", "))
	f.IntVar(&most, "count", 0, "end after `n` messages (default: never)")
	return cmd
}

// protocols are the subprotocols of sub, without the part of their names that they
// share; the first is the default.
var protocols = []string{"json.reliable", "json", "protobuf.reliable", "protobuf"}

// subscribe prints what a client receives until a signal, or ctx, ends it.
func (s *service) subscribe(ctx context.Context, w *world, claims token.Claims, protocol string, most int) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // ends with ctx
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-w.Signals:
				if s != syscall.SIGHUP {
					stop()
				}
			}
		}
	}()

	// The token puts the client into its groups, so that it is in them again
	// after a reconnection, without a gap between the two.
	url := func(context.Context) (string, error) { return s.ClientURL(s.hub, claims) }
	first, err := url(ctx)
	if err != nil {
		return errors.New(said(err))
	}
	c, err := client.Dial(ctx, first, &client.Options{
		Subprotocol: protocol, NetDial: s.dial, Reconnect: &client.Reconnect{URL: url},
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return s.explain(err)
	}
	defer c.Close()
	for n := 0; most == 0 || n < most; {
		e, err := c.Receive(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return s.explain(err)
		}
		switch e := e.(type) {
		case client.Message:
			if _, err := w.Stdout.Write(line(e)); err != nil {
				return fmt.Errorf("write a message: %w", err)
			}
			n++
		case client.Connected:
			fmt.Fprintf(w.Stderr, "connected to hub %s%s as connection %s\n", s.hub, inGroups(claims.Groups), e.ConnectionID)
		case client.Disconnected:
			fmt.Fprintf(w.Stderr, "the node says: %s\n", e.Text)
		case client.Recovered:
			fmt.Fprintf(w.Stderr, "the connection was lost and is recovered; nothing was missed (%v)\n", e.Err)
		case client.Lost:
			fmt.Fprintf(w.Stderr, "the connection was lost and a new one is being made; what is sent meanwhile is missed (%v)\n", e.Err)
		case client.RejoinFailed:
			fmt.Fprintf(w.Stderr, "not in group %s any more: %v\n", e.Group, e.Err)
		}
	}
	return nil
}

func inGroups(groups []engine.GroupName) string {
	if len(groups) == 0 {
		return ""
	}
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = string(g)
	}
	return ", in " + strings.Join(names, ", ") + ","
}

// line returns a message as one line of JSON.
func line(m client.Message) []byte {
	out := struct {
		Group      string            `json:"group,omitempty"`
		FromUserID string            `json:"fromUserId,omitempty"`
		DataType   string            `json:"dataType"`
		Data       any               `json:"data"`
		Metadata   map[string]string `json:"metadata,omitempty"`
	}{m.Group, m.FromUserID, m.Payload.Type.String(), m.Payload.Data, m.Metadata}
	switch m.Payload.Type {
	case engine.Text:
		out.Data = string(m.Payload.Data)
	case engine.JSON:
		out.Data = json.RawMessage(m.Payload.Data)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(out); err != nil {
		// JSON that this side's reader does not take is still worth a line.
		b.Reset()
		out.DataType, out.Data = "text", string(m.Payload.Data)
		enc.Encode(out) //nolint:errcheck // strings always encode
	}
	return b.Bytes()
}
