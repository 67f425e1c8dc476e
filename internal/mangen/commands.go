package mangen

import (
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Commands returns a page of the root command, and one for each command below it, with its own subcommands on it. The
// date is that of the version.
func Commands(root *cobra.Command, date time.Time) []Page {
	pages := []Page{rootPage(root, date)}
	for _, c := range available(root) {
		pages = append(pages, commandPage(c, date))
	}
	return pages
}

func rootPage(root *cobra.Command, date time.Time) Page {
	r := newPage(date, root.Name(), "1", root.Short)
	r.macro("Sh", "SYNOPSIS")
	r.macro("Nm")
	r.WriteString(".Op Ar options\n.Ar command\n")
	r.macro("Sh", "DESCRIPTION")
	r.text(root.Long)
	r.macro("Sh", "COMMANDS")
	r.WriteString(".Bl -tag -width Ds\n")
	for _, c := range available(root) {
		r.WriteString(".It Xr " + pageName(c) + " 1\n")
		r.text(c.Short)
	}
	r.WriteString(".El\n")
	r.macro("Sh", "OPTIONS")
	r.text("Every command has these.")
	r.options(root.PersistentFlags())
	r.macro("Sh", "EXIT STATUS")
	r.text("0: it is done, or the answer is yes. 1: it failed, or the answer is no. 2: wrong usage.")
	r.macro("Sh", "SEE ALSO")
	r.WriteString(".Xr relay.toml 5\n")
	return Page{root.Name() + ".1", r.String()}
}

func commandPage(c *cobra.Command, date time.Time) Page {
	r := newPage(date, pageName(c), "1", c.Short)
	r.macro("Sh", "SYNOPSIS")
	r.synopsis(c)
	r.macro("Sh", "DESCRIPTION")
	r.command(c)
	r.subcommands(c)
	r.macro("Sh", "SEE ALSO")
	r.WriteString(".Xr " + c.Root().Name() + " 1 ,\n.Xr relay.toml 5\n")
	return Page{pageName(c) + ".1", r.String()}
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// available returns the commands below one that people are shown. The list of commands that help prints is none.
func available(c *cobra.Command) (shown []*cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			shown = append(shown, sub)
		}
	}
	return shown
}

// synopsis writes the usage of a command and of those below it. A command that only holds others has no usage.
func (r *roff) synopsis(c *cobra.Command) {
	words := strings.Fields(c.Use)
	if len(available(c)) == 0 || len(words) > 1 || c.LocalNonPersistentFlags().HasFlags() {
		r.macro("Nm", c.CommandPath())
		r.WriteString(".Op Ar options\n")
		for _, word := range words[1:] {
			r.macro("Ar", word)
		}
	}
	for _, sub := range available(c) {
		r.synopsis(sub)
	}
}

// subcommands writes all that is below a command.
func (r *roff) subcommands(c *cobra.Command) {
	for _, sub := range available(c) {
		r.macro("Ss", strings.TrimSuffix(sub.CommandPath()+" "+strings.Join(strings.Fields(sub.Use)[1:], " "), " "))
		r.command(sub)
		r.subcommands(sub)
	}
}

// command writes what one command is, its options and examples.
func (r *roff) command(c *cobra.Command) {
	about := c.Long
	if about == "" {
		about = c.Short + "."
	}
	r.text(about)
	if len(c.Aliases) > 0 {
		r.text("Also: " + strings.Join(c.Aliases, ", ") + ".")
	}
	r.options(c.LocalFlags())
	if c.Example != "" {
		r.macro("Pp")
		r.text("Examples:")
		r.literal(c.Example)
	}
}

// options writes a list of flags, but for --help, which everything has.
func (r *roff) options(flags *pflag.FlagSet) {
	begun := false
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		if !begun {
			r.WriteString(".Bl -tag -width Ds\n")
			begun = true
		}
		r.option(f)
	})
	if begun {
		r.WriteString(".El\n")
	}
}

func (r *roff) option(f *pflag.Flag) {
	name, usage := pflag.UnquoteUsage(f)
	tag := ".It Fl " + argument("-"+f.Name)
	if f.Shorthand != "" {
		tag = ".It Fl " + f.Shorthand + " , Fl " + argument("-"+f.Name)
	}
	if name != "" {
		tag += " Ar " + argument(name)
	}
	r.WriteString(tag + "\n")
	if !strings.Contains(usage, "(default ") && hasDefault(f) {
		usage += " (default " + f.DefValue + ")"
	}
	r.text(usage)
}

// hasDefault reports whether a flag that is not given means more than that it is not given.
func hasDefault(f *pflag.Flag) bool {
	switch f.DefValue {
	case "", "0", "0s", "false", "[]", "-1":
		return false
	}
	return true
}
