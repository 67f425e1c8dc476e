package dns01

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// Exec has a program of the operator's publish records: COMMAND… present|cleanup NAME VALUE. No shell is between. The
// program returns when the record is published, with exit code 0.
type Exec struct {
	Command []string // the program with its full path, and its first arguments
	Watch   *Watch   // nil: the program is believed
}

// Bounds of the program.
const (
	execTime  = 5 * time.Minute
	execGrace = 5 * time.Second // for what it started, once it has ended or was killed
	maxOutput = 4 << 10         // octets that are kept, for the error
)

// Present publishes a record.
func (e *Exec) Present(ctx context.Context, name, value string) error {
	if err := e.run(ctx, "present", name, value); err != nil || e.Watch == nil {
		return err
	}
	return e.Watch.Await(ctx, name, value)
}

// CleanUp takes a record back.
func (e *Exec) CleanUp(ctx context.Context, name, value string) error {
	return e.run(ctx, "cleanup", name, value)
}

// Settings tells settings apart.
func (e *Exec) Settings() string { return fmt.Sprintf("exec %q", e.Command) }

func (e *Exec) run(ctx context.Context, verb, name, value string) error {
	if err := check(name, value); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, execTime)
	defer cancel()
	args := append(e.Command[1:len(e.Command):len(e.Command)], verb, name, value)
	cmd := exec.CommandContext(ctx, e.Command[0], args...)
	cmd.WaitDelay = execGrace
	killAll(cmd) // a script that is killed leaves what it waited for
	// Not our whole environment: it has the secrets that relay.toml names by env:NAME.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LANG=C",
		"POSTERN_ACME_NAME=" + name, "POSTERN_ACME_VALUE=" + value}
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%s %s was given %s and did not end: %w", e.Command[0], verb, execTime, ctx.Err())
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it ended well, and left something running that holds its output
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w; it said: %.500q", e.Command[0], verb, err, bytes.TrimSpace(out.kept))
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct{ kept []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p[max(0, len(p)-maxOutput):]...)
	t.kept = t.kept[max(0, len(t.kept)-maxOutput):]
	return len(p), nil
}
