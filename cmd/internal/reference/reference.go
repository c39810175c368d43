// Package reference writes what a command line offers as Markdown and as man
// pages, from the commands themselves. Only the tests of the commands import it:
// they keep docs/reference current, and `make man` writes the pages through
// them, so that no binary carries the generators.
package reference

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	"github.com/binnacle-project/binnacle"
)

var (
	update = flag.Bool("update", false, "rewrite the file of docs/reference")
	manDir = flag.String("man", "", "write man pages into this `DIR`")
)

// Check keeps docs/reference/NAME.md equal to root, or writes the man pages when
// it is asked to. A non-empty env is what the environment variables of the
// flags begin with. replace holds pairs of what differs between machines and
// what stands for it.
func Check(t *testing.T, root *cobra.Command, env string, replace ...string) {
	t.Helper()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	if *manDir != "" {
		if err := os.MkdirAll(*manDir, 0o755); err != nil {
			t.Fatal(err)
		}
		root.DisableAutoGenTag = true
		err := doc.GenManTree(root, &doc.GenManHeader{Title: strings.ToUpper(root.Name()), Section: "1", Source: "Binnacle " + binnacle.Version, Manual: "Binnacle"}, *manDir)
		if err != nil {
			t.Fatal(err)
		}
		return // the generator changed the commands
	}
	file := filepath.Join("..", "..", "docs", "reference", root.Name()+".md")
	got := strings.NewReplacer(replace...).Replace(Markdown(root, env))
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the command offers: run make reference and look at the change", file)
	}
}

// Markdown writes root and its commands, depth first.
func Markdown(root *cobra.Command, env string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\nMade from the command itself by `make reference`; do not edit. `%s COMMAND --help` says the same.\n", root.Name(), root.Name())
	if env != "" {
		fmt.Fprintf(&b, "Each flag may also stand in the environment under the name given, and in the YAML file of `--config` under its own name.\n")
	}
	page(&b, root, env)
	return b.String()
}

func page(b *strings.Builder, cmd *cobra.Command, env string) {
	if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" && cmd.HasParent() && cmd.Parent().HasParent() {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n%s.\n", cmd.CommandPath(), strings.TrimSuffix(cmd.Short, "."))
	if cmd.Long != "" && cmd.Name() != "completion" {
		fmt.Fprintf(b, "\n%s\n", strings.TrimSpace(cmd.Long))
	}
	if cmd.Runnable() {
		fmt.Fprintf(b, "\n```\n%s\n```\n", cmd.UseLine())
	}
	if cmd.Example != "" {
		fmt.Fprintf(b, "\nExamples:\n\n```sh\n%s\n```\n", unindent(cmd.Example))
	}
	flags(b, cmd.NonInheritedFlags(), env)
	if cmd.Name() == "completion" {
		fmt.Fprint(b, "\nbash, zsh, fish, powershell: `"+cmd.CommandPath()+" SHELL --help` says where the output goes.\n")
		return
	}
	for _, c := range cmd.Commands() {
		page(b, c, env)
	}
}

func unindent(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "  ")
	}
	return strings.Join(lines, "\n")
}

func flags(b *strings.Builder, set *pflag.FlagSet, env string) {
	head := "\n| flag | default | meaning |\n|---|---|---|\n"
	if env != "" {
		head = "\n| flag | environment | default | meaning |\n|---|---|---|---|\n"
	}
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || f.Name == "version" {
			return
		}
		b.WriteString(head)
		head = ""
		kind, usage := pflag.UnquoteUsage(f)
		name := "`--" + f.Name
		if kind != "" {
			name += " " + kind
		}
		name += "`"
		if f.Shorthand != "" {
			name += ", `-" + f.Shorthand + "`"
		}
		def := ""
		if f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "false" && !(f.DefValue == "0" && f.Value.Type() == "int" && strings.Contains(usage, "default")) {
			def = "`" + f.DefValue + "`"
		}
		usage = strings.ReplaceAll(usage, "|", "\\|")
		if env != "" {
			fmt.Fprintf(b, "| %s | `%s%s` | %s | %s |\n", name, env, strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")), def, usage)
		} else {
			fmt.Fprintf(b, "| %s | %s | %s |\n", name, def, usage)
		}
	})
}
