package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postern/operate"
	"postern/relay/queue"
)

// expected is how many messages an action is meant for: what --expect says, or what somebody at a terminal is shown and
// agrees to. nil: as many as there are.
func expected(cmd *cobra.Command, ops *operate.Operations, action operate.Action, f queue.Filter, said int64) (*int64,
	error) {
	switch in, isFile := cmd.InOrStdin().(*os.File); {
	case cmd.Flags().Changed("expect") && said < 0:
		return nil, usage(cmd, fmt.Errorf("--expect %d is not a number of messages", said))
	case cmd.Flags().Changed("expect"):
		return &said, nil
	case f.IDs != nil || action.Verb != operate.Delete.Verb && action.Verb != operate.Bounce.Verb:
		return nil, nil
	case !isFile || !term.IsTerminal(int(in.Fd())):
		return nil, nil // a script, which nobody can answer for
	}
	n, err := ops.Queue.Count(cmd.Context(), me(), action, f)
	if err != nil || n == 0 {
		return &n, err
	}
	return &n, agree(cmd.InOrStdin(), cmd.ErrOrStderr(), action.Verb, n)
}

// agree asks whether to do something that cannot be undone.
func agree(in io.Reader, out io.Writer, verb string, n int64) error {
	fmt.Fprintf(out, "%s %s? This cannot be undone. [y/N] ", strings.ToUpper(verb[:1])+verb[1:], plural(n, "message"))
	answer, err := bufio.NewReader(io.LimitReader(in, 100)).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return fmt.Errorf("nothing was done")
	}
	return nil
}
