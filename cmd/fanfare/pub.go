package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// apiVersion is the newest version of the REST API.
const apiVersion = "2024-12-01"

// maxInput bounds what pub reads from standard input; the node has its own bound.
const maxInput = 64 << 20

func pubCommand(w *world) *cobra.Command {
	var to reach
	var group, user, connection, kind string
	var all bool
	cmd := &cobra.Command{
		Use:   "pub --hub HUB (--group GROUP | --user USER | --connection ID | --all) TEXT",
		Short: "Publish one message through REST",
		Long: `Pub sends one message, as an application server does: by a REST request that is
signed with the access key. The text - stands for standard input.

It succeeds once the node has taken the message, whether or not anyone receives it.`,
		Example: `  fanfare pub --hub chat --group lobby 'hello'
  fanfare pub --hub chat --all --type json '{"n": 1}'
  fanfare pub --hub chat --user ann --type binary - < picture.png`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef(cmd, "found %s; expected one, the text (quote it if it holds blanks)", count(len(args), "argument"))
			}
			s, err := to.find(cmd, w)
			if err != nil {
				return err
			}
			path, err := target(cmd, group, user, connection, all)
			if err != nil {
				return err
			}
			contentType, ok := map[string]string{
				"text": "text/plain; charset=utf-8", "json": "application/json", "binary": "application/octet-stream",
			}[kind]
			if !ok {
				return usagef(cmd, "--type: found %q; expected text, json or binary", kind)
			}
			if w.Release != nil {
				w.Release() // nothing here heeds signals, and standard input may never end
			}
			body := []byte(args[0])
			if args[0] == "-" {
				if body, err = io.ReadAll(io.LimitReader(w.Stdin, maxInput+1)); err != nil {
					return fmt.Errorf("read standard input: %w", err)
				}
				if len(body) > maxInput {
					return fmt.Errorf("standard input holds more than %d bytes", maxInput)
				}
			}
			return s.publish(cmd.Context(), path, contentType, body)
		},
	}
	to.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&group, "group", "", "send to the members of this `group`")
	f.StringVar(&user, "user", "", "send to the connections of this `user`")
	f.StringVar(&connection, "connection", "", "send to the connection of this `id`")
	f.BoolVar(&all, "all", false, "send to every connection of the hub")
	f.StringVar(&kind, "type", "text", "what the text is: `text`, json or binary")
	return cmd
}

// target returns the path, below the hub's, of the one target that is named.
func target(cmd *cobra.Command, group, user, connection string, all bool) (string, error) {
	var paths []string
	for _, t := range []struct{ flag, segment, name string }{
		{"group", "groups", group}, {"user", "users", user}, {"connection", "connections", connection},
	} {
		if !cmd.Flags().Changed(t.flag) {
			continue
		}
		if strings.TrimSpace(t.name) == "" {
			return "", usagef(cmd, "--%s is blank", t.flag)
		}
		paths = append(paths, "/"+t.segment+"/"+url.PathEscape(t.name))
	}
	if all {
		paths = append(paths, "")
	}
	if len(paths) != 1 {
		return "", usagef(cmd, "found %s; expected exactly one of --group, --user, --connection and --all", count(len(paths), "target"))
	}
	return paths[0] + "/:send", nil
}

// publish posts body to a path below the hub's.
func (s *service) publish(ctx context.Context, path, contentType string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	to := s.Endpoint + "/api/hubs/" + url.PathEscape(string(s.hub)) + path + "?api-version=" + apiVersion
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return err
	}
	signed, err := s.ServerToken(to)
	if err != nil {
		return errors.New(said(err))
	}
	r.Header.Set("Authorization", "Bearer "+signed)
	r.Header.Set("Content-Type", contentType)
	c := http.Client{
		Transport:     &http.Transport{DialContext: s.dial, DisableKeepAlives: true, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	reply, err := c.Do(r)
	if err != nil {
		// The URL in the error would tell nothing new.
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return s.explain(err)
	}
	defer reply.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(reply.Body, 4<<10))
	if reply.StatusCode == http.StatusAccepted {
		return nil
	}
	return fmt.Errorf("the node refused the message with status %d%s", reply.StatusCode, reason(text))
}

// reason returns what the body of a refusal says.
func reason(body []byte) string {
	var e struct {
		Code, Message string
		Inner         struct{ Code string }
	}
	if json.Unmarshal(body, &e) != nil || e.Message == "" {
		if text := strings.Join(strings.Fields(string(body)), " "); text != "" {
			return ": " + text
		}
		return ""
	}
	if e.Inner.Code != "" {
		return ": " + e.Message + " [" + e.Inner.Code + "]"
	}
	return ": " + e.Message
}
