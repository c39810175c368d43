package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/state/atomicfile"
)

// contexts is the file that names the clusters a person works with. It holds
// paths of tokens, never tokens.
type contexts struct {
	Current  string            `yaml:"current,omitempty"`
	Contexts map[string]target `yaml:"contexts,omitempty"`
}

// contextsFile is BINNACLE_CONTEXTS, else contexts.yaml in binnacle's folder of
// the user's configuration.
func contextsFile() (string, error) {
	if f := os.Getenv("BINNACLE_CONTEXTS"); f != "" {
		return f, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", usageError{fmt.Errorf("find the file of contexts: %w: set BINNACLE_CONTEXTS", err)}
	}
	return filepath.Join(dir, "binnacle", "contexts.yaml"), nil
}

// readContexts returns no contexts where there is no file, or no home to have
// one in.
func readContexts() (contexts, error) {
	c := contexts{Contexts: map[string]target{}}
	file, err := contextsFile()
	if err != nil {
		return c, nil
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	} else if err != nil {
		return c, usageError{fmt.Errorf("read the contexts: %w", err)}
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, usageError{fmt.Errorf("read the contexts in %s: %w", file, err)}
	}
	if c.Contexts == nil {
		c.Contexts = map[string]target{}
	}
	return c, nil
}

// write replaces the file in one step: a full disk leaves the old one.
func (c contexts) write() error {
	file, err := contextsFile()
	if err != nil {
		return err
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("write the contexts: %w", err)
	}
	if err := atomicfile.Write(file, b, 0o600); err != nil {
		return fmt.Errorf("keep the contexts: %w", err)
	}
	return nil
}

var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func newContext(conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Name the clusters you work with, and choose one",
		Long: `A context is a name for a manager and the token file to use with it. Contexts stand in
binnacle/contexts.yaml below your configuration folder (~/.config), or in the file that
BINNACLE_CONTEXTS names. Tokens stay in their own files.

A flag beats the environment, which beats the context. Where --manager or BINNACLE_MANAGER names
another manager than the context's, the context's token is not sent there.`,
	}
	var t target
	add := &cobra.Command{
		Use: "add NAME --manager URL [--token-file FILE]", Short: "Add or change a context, and use it", Args: exactArgs(1),
		Example: "  binnacle context add production --manager https://binnacle.example:9897 --token-file ~/.config/binnacle/production.token",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !contextName.MatchString(args[0]) {
				return usageError{fmt.Errorf("context name %q: want letters, digits, dots, dashes", args[0])}
			}
			if conn.manager == "" {
				return usageError{errors.New("--manager is missing: the address of the manager, such as http://10.0.0.5:9897")}
			}
			if _, err := api.NewClient(conn.manager, "", nil); err != nil {
				return usageError{fmt.Errorf("--manager: %w", err)}
			}
			t.Manager = conn.manager
			for _, p := range []struct{ from, to *string }{{&conn.tokenFile, &t.TokenFile}, {&conn.caFile, &t.CAFile}} {
				if *p.from == "" {
					continue
				}
				abs, err := filepath.Abs(*p.from)
				if err != nil {
					return err
				}
				if _, err := os.Stat(abs); err != nil {
					return usageError{err}
				}
				*p.to = abs
			}
			c, err := readContexts()
			if err != nil {
				return err
			}
			c.Contexts[args[0]], c.Current = t, args[0]
			if err := c.write(); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "context %s is %s, and in use\n", args[0], t.Manager)
			return nil
		},
	}
	change := func(use, short string, do func(c *contexts, name string) string) *cobra.Command {
		return &cobra.Command{
			Use: use + " NAME", Short: short, Args: exactArgs(1), ValidArgsFunction: completeContexts,
			RunE: func(cmd *cobra.Command, args []string) error {
				c, err := readContexts()
				if err != nil {
					return err
				}
				if _, ok := c.Contexts[args[0]]; !ok {
					return usageError{fmt.Errorf("there is no context %q: `binnacle context list` shows them", args[0])}
				}
				done := do(&c, args[0])
				if err := c.write(); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), done)
				return nil
			},
		}
	}
	list := &cobra.Command{
		Use: "list", Short: "List the contexts; a star marks the one in use", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := readContexts()
			if err != nil {
				return err
			}
			type row struct {
				Name      string `json:"name"`
				Current   bool   `json:"current"`
				Manager   string `json:"manager"`
				TokenFile string `json:"token_file,omitempty"`
				CAFile    string `json:"ca_file,omitempty"`
			}
			rows := []row{}
			for _, name := range slices.Sorted(maps.Keys(c.Contexts)) {
				t := c.Contexts[name]
				rows = append(rows, row{name, name == firstOf(os.Getenv("BINNACLE_CONTEXT"), c.Current), t.Manager, t.TokenFile, t.CAFile})
			}
			return conn.print(cmd.OutOrStdout(), rows, func(w io.Writer) {
				fmt.Fprintln(w, "\tNAME\tMANAGER\tTOKEN FILE")
				for _, r := range rows {
					mark := ""
					if r.Current {
						mark = "*"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", mark, r.Name, r.Manager, firstOf(r.TokenFile, dash))
				}
			})
		},
	}
	cmd.AddCommand(list, add,
		change("use", "Use a context from now on", func(c *contexts, name string) string {
			c.Current = name
			return fmt.Sprintf("context %s (%s) is in use", name, c.Contexts[name].Manager)
		}),
		change("remove", "Remove a context; its token file stays", func(c *contexts, name string) string {
			delete(c.Contexts, name)
			if c.Current == name {
				c.Current = ""
			}
			return fmt.Sprintf("context %s is removed", name)
		}),
	)
	return cmd
}
