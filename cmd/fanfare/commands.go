package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
)

// newRoot returns the command line: serving, and the commands beside it.
func newRoot(w *world) *cobra.Command {
	root := serveCommand(w)
	root.Use = "fanfare"
	root.Short = "A real-time pub/sub service that speaks the Azure Web PubSub protocols"
	root.Long = `Fanfare is a real-time pub/sub service that speaks the Azure Web PubSub protocols:
servers and clients written against Azure run against it with only their
connection string changed.

Without a command it serves. To see a message cross, type this in one terminal

    fanfare

this in a second one

    fanfare sub --hub chat --group lobby

and this in a third:

    fanfare pub --hub chat --group lobby 'hello'`
	root.Version = versionLine()
	root.SetVersionTemplate("{{.Version}}\n")
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		text := fmt.Sprintf("there is no command %q", args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += "; the nearest one is " + near[0]
		}
		return &usageError{err: errors.New(text), hint: cmd.CommandPath()}
	}
	root.SuggestionsMinimumDistance = 2
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(w.Stdin)
	root.SetOut(w.Stdout)
	root.SetErr(w.Stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err: err, hint: cmd.CommandPath()}
	})
	serve := serveCommand(w)
	serve.Use = "serve"
	root.AddCommand(serve, checkCommand(w), tokenCommand(w), subCommand(w), pubCommand(w), versionCommand(w), configTopic())
	return root
}

// noArgs refuses arguments with a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{err: fmt.Errorf("found the argument %q; expected none", args[0]), hint: cmd.CommandPath()}
	}
	return nil
}

// usagef returns a usage error that points to cmd's help.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...), hint: cmd.CommandPath()}
}

// settings are the flags that say where a node's settings come from.
type settings struct {
	file                             string
	listen, key, logLevel, logFormat string
}

func (s *settings) fileFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&s.file, "config", "c", "", "read settings from this YAML `file` (also FANFARE_CONFIG); see 'fanfare help config'")
}

func (s *settings) flags(cmd *cobra.Command) {
	s.fileFlag(cmd)
	cmd.Flags().StringVar(&s.listen, "listen", "", "listen on this `host:port` (default 127.0.0.1:8080)")
	cmd.Flags().StringVar(&s.key, "access-key", "", "use this primary access `key`; better set FANFARE_ACCESS_KEYS_PRIMARY, which other users of the machine cannot see")
	cmd.Flags().StringVar(&s.logLevel, "log-level", "", "log this `level` and above: debug, info, warn or error (default info)")
	cmd.Flags().StringVar(&s.logFormat, "log-format", "", "write the log in this `format`: text or json (default text)")
}

// load reads the settings of a node from flags, environment and file.
func (s *settings) load(cmd *cobra.Command, w *world) (*config.Config, config.Problems, error) {
	return config.Load(s.sources(cmd, w))
}

// sources returns where the settings of a node come from.
func (s *settings) sources(cmd *cobra.Command, w *world) config.Sources {
	src := config.Sources{File: s.path(w), Environ: w.Environ}
	for _, f := range []config.Flag{
		{Name: "listen", Key: "listen", Value: s.listen},
		{Name: "access-key", Key: "accessKeys.primary", Value: s.key},
		{Name: "log-level", Key: "log.level", Value: s.logLevel},
		{Name: "log-format", Key: "log.format", Value: s.logFormat},
	} {
		if flag := cmd.Flags().Lookup(f.Name); flag != nil && flag.Changed {
			src.Flags = append(src.Flags, f)
		}
	}
	return src
}

// path returns the settings file; empty for none.
func (s *settings) path(w *world) string {
	if s.file != "" {
		return s.file
	}
	return w.getenv("FANFARE_CONFIG")
}

// tell prints problems, one a line, and the remedy where a key is missing.
func tell(w *world, problems config.Problems) {
	needsKey := false
	for _, p := range problems {
		fmt.Fprintln(w.Stderr, p)
		needsKey = needsKey || p.NeedsKey
	}
	if needsKey {
		fmt.Fprintf(w.Stderr, `
The development key is public and serves on a loopback address only. Here is a
key that was made just now for you and is used nowhere else:

    FANFARE_ACCESS_KEYS_PRIMARY=%s

`, newKey())
	}
}

func versionCommand(w *world) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the module's version, the commit and the Go version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(w.Stdout, versionLine())
			return err
		},
	}
}

func checkCommand(w *world) *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the settings and print every mistake at once",
		Long: `Check reads the settings as a node would, from the file, the environment and the
defaults, follows what they refer to (certificates and keys), and prints every
mistake with its place. It opens no port and calls nobody.

The exit code is 1 if there is a mistake.`,
		Example: "  fanfare check --config fanfare.yaml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, warnings, err := s.load(cmd, w)
			for _, p := range warnings {
				fmt.Fprintf(w.Stderr, "warning: %s\n", p)
			}
			if err != nil {
				problems := config.Problems{}
				if !errors.As(err, &problems) {
					return err
				}
				tell(w, problems)
				fmt.Fprintf(w.Stderr, "%s\n", count(len(problems), "mistake"))
				return &toldError{exitFailed}
			}
			where := "the defaults and the environment"
			if f := s.path(w); f != "" {
				where = f
			}
			fmt.Fprintf(w.Stdout, "%s: no mistakes; listens on %s, %s set\n", where, c.Listen, count(len(c.Hubs), "hub"))
			return nil
		},
	}
	s.flags(cmd)
	return cmd
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// configTopic is what 'fanfare help config' prints: every setting.
func configTopic() *cobra.Command {
	var b strings.Builder
	b.WriteString(`Settings come from the defaults, the YAML file (--config), the environment and the
flags; each of these wins over the one before it. 'fanfare check' tells every
mistake at once, and SIGHUP makes a running node read its file again.

Below stand every key, its variable and its default. In the environment a list is
written with commas or as YAML; a list of maps, and the map hubs, as YAML or JSON
text that replaces it. HUB is a hub's name; without _HUB the variable is for the
hub "*". Names of files are relative to the working directory.

An example:

  listen: 0.0.0.0:8443
  publicEndpoint: https://rt.example.com
  tls: { certFile: cert.pem, keyFile: key.pem }
  accessKeys: { primary: "..." }
  hubs:
    chat:
      eventHandlers:
        - urlTemplate: https://app.example.com/{hub}/{event}
          userEventPattern: "*"
          systemEvents: [connect, connected, disconnected]

`)
	for _, k := range config.Keys() {
		b.WriteString(k.Path)
		if k.Default != "" {
			b.WriteString(" (" + k.Default + ")")
		}
		b.WriteByte('\n')
		for _, line := range wrap(k.Doc, 76) {
			b.WriteString("    " + line + "\n")
		}
		if k.Env != "" {
			b.WriteString("    " + strings.Replace(k.Env, "FANFARE_HUBS_", "FANFARE_HUBS_HUB_", 1) + "\n")
		}
	}
	return &cobra.Command{Use: "config", Short: "Every setting: its key, variable, default and meaning", Long: b.String()}
}

// wrap breaks text at blanks into lines of at most width bytes.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
