package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
)

func tokenCommand(w *world) *cobra.Command {
	var to reach
	var user string
	var roles, groups []string
	var minutes int64
	cmd := &cobra.Command{
		Use:   "token --hub HUB",
		Short: "Print a client access URL",
		Long: `Token signs a client access token with the node's key and prints the URL that a
client connects to with it. Whoever has the URL is that client until the token
ends. It calls nobody.`,
		Example: `  fanfare token --hub chat
  fanfare token --hub chat --user ann --group lobby --role webpubsub.sendToGroup.lobby --minutes 5`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := to.find(cmd, w)
			if err != nil {
				return err
			}
			const most = int64(math.MaxInt64 / time.Minute) // some 292 years
			if minutes < 1 || minutes > most {
				return usagef(cmd, "--minutes: found %d; expected 1 to %d", minutes, most)
			}
			claims := token.Claims{Roles: roles, Lifetime: time.Duration(minutes) * time.Minute}
			if claims.User, err = parseUser(cmd, user); err != nil {
				return err
			}
			if claims.Groups, err = parseGroups(cmd, groups); err != nil {
				return err
			}
			url, err := s.clientURL(claims)
			if err != nil {
				return fmt.Errorf("%s", said(err))
			}
			_, err = fmt.Fprintln(w.Stdout, url)
			return err
		},
	}
	to.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&user, "user", "", "the client's `user` (default: none)")
	f.StringArrayVar(&roles, "role", nil, "a `role`, such as webpubsub.sendToGroup.lobby; may be repeated")
	f.StringArrayVar(&groups, "group", nil, "a `group` that the client is put into as it connects; may be repeated")
	f.Int64Var(&minutes, "minutes", 60, "how many `minutes` the token lives")
	return cmd
}

// clientURL returns the URL for a client: addressed to the endpoint, as the
// token is, or to the door if that is elsewhere.
func (s *service) clientURL(claims token.Claims) (string, error) {
	url, err := s.ClientURL(s.hub, claims)
	if err == nil && s.address != s.Addr() {
		scheme, rest, _ := strings.Cut(url, "://")
		_, path, _ := strings.Cut(rest, "/")
		url = scheme + "://" + s.address + "/" + path
	}
	return url, err
}

func parseUser(cmd *cobra.Command, text string) (engine.UserID, error) {
	if text == "" && !cmd.Flags().Changed("user") {
		return "", nil
	}
	user, err := engine.ParseUserID(text)
	if err != nil {
		return "", usagef(cmd, "--user: %s", said(err))
	}
	return user, nil
}

func parseGroups(cmd *cobra.Command, texts []string) ([]engine.GroupName, error) {
	var groups []engine.GroupName
	for _, text := range texts {
		g, err := engine.ParseGroupName(text)
		if err != nil {
			return nil, usagef(cmd, "--group: %s", said(err))
		}
		groups = append(groups, g)
	}
	return groups, nil
}
