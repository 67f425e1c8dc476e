package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/mail"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/doctor"
	"postern/relay/finding"
)

// minWatch is the shortest time between two examinations: each logs in at the providers.
const minWatch = time.Minute

func (a *app) doctorCommand() *cobra.Command {
	var (
		d     doctorView
		every string
		only  []string
		dns   dnsFlags
	)
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at everything that can be wrong, and say what it is, why it matters and what to do",
		Long: `Look at the configuration, the daemon, its listeners by the names that clients use, certificates, the
clock, the disk, files and their rights, the store, the queue, upstreams with each configured sender, hooks,
accounts and the DNS of each sender's domain, and say of each fault what it is, why it matters and what to do, the
heaviest first. Exit code 1: mail is in danger.

Nothing is changed and nothing is sent: upstreams are tried as by "postern upstream test", hooks are connected to and
told nothing.`,
		Example: `  postern doctor
  postern doctor --only upstreams --all
  postern doctor --watch 5m`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := a.path()
			if err != nil {
				return err
			}
			d.w, d.json = cmd.OutOrStdout(), asJSON(cmd)
			look, err := dns.options(a)
			if err != nil {
				return usage(cmd, err)
			}
			o := operate.DoctorOptions(path, readBuild().Version, look)
			o.Only = only
			if every == "" {
				return d.once(cmd, o)
			}
			wait, err := config.ParseDuration(every)
			if err == nil && wait.Std() < minWatch {
				err = fmt.Errorf("%s is too short, write %s at least: each time the providers are logged in to", every,
					minWatch)
			}
			if err != nil {
				return usage(cmd, fmt.Errorf("--watch: %w", err))
			}
			return d.watch(cmd, o, wait.Std())
		},
	}
	cmd.Flags().StringVar(&every, "watch", "", "look again each `duration`, such as 5m, and print what came and went")
	cmd.Flags().StringArrayVar(&only, "only", nil,
		"only what this `name` stands for; may be repeated: config, daemon, "+
			"listeners, certificates, clock, disk, files, store, queue, upstreams, alerts, accounts, devices, dns")
	dns.add(cmd)
	dns.addAddress(cmd)
	cmd.Flags().BoolVar(&d.all, "all", false, "print also what is in order")
	return withJSON(cmd)
}

// doctorView prints examinations.
type doctorView struct {
	w         io.Writer
	json, all bool
}

func (d *doctorView) once(cmd *cobra.Command, o doctor.Options) error {
	r, err := doctor.Examine(cmd.Context(), o)
	switch {
	case err != nil && cmd.Context().Err() == nil:
		return usage(cmd, err)
	case err != nil:
		return err
	case d.json:
		err = writeJSON(d.w, r)
	default:
		err = d.print(r)
	}
	if err == nil && !r.OK {
		err = errSilent
	}
	return err
}

// watch examines again and again until the command is ended. Its exit code is that of the last examination.
func (d *doctorView) watch(cmd *cobra.Command, o doctor.Options, every time.Duration) error {
	ctx := cmd.Context()
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last *doctor.Report
	for {
		r, err := doctor.Examine(ctx, o)
		switch {
		case err != nil && ctx.Err() == nil:
			return usage(cmd, err)
		case err != nil: // the examination was broken off
		case d.json:
			err = writeJSONLine(d.w, r)
		case last == nil:
			err = d.print(r)
		default:
			err = d.changes(last, r)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err == nil {
			last = r
		}
		select {
		case <-ctx.Done():
			if last != nil && !last.OK {
				return errSilent
			}
			return nil
		case <-tick.C:
		}
	}
}

// headings of the weights, the heaviest first.
var doctorHeadings = []struct {
	weight finding.Weight
	text   string
	colour string
}{
	{finding.Danger, "DANGER: mail is refused, waits or is lost, or soon will be", red},
	{finding.Fault, "FAULT: something does not work", yellow},
	{finding.Advice, "ADVICE: it works, and could be better", bold},
	{finding.Healthy, "IN ORDER", green},
}

func (d *doctorView) print(r *doctor.Report) error {
	counts := map[finding.Weight]int{}
	for _, f := range r.Findings {
		counts[f.Weight]++
	}
	fmt.Fprintln(d.w, paint(d.w, bold, doctorSummary(r, counts)))
	for _, h := range doctorHeadings {
		if counts[h.weight] == 0 || h.weight == finding.Healthy && !d.all {
			continue
		}
		fmt.Fprintf(d.w, "\n%s\n", paint(d.w, h.colour, h.text))
		for i := range r.Findings {
			if r.Findings[i].Weight == h.weight {
				d.finding(&r.Findings[i])
			}
		}
	}
	_, err := fmt.Fprintf(d.w, "\n%s in order%s.\n", plural(int64(counts[finding.Healthy]), "thing"), hint(d.all))
	return err
}

func hint(all bool) string {
	if all {
		return ""
	}
	return " (shown with --all)"
}

func doctorSummary(r *doctor.Report, counts map[finding.Weight]int) string {
	switch {
	case !r.OK:
		return fmt.Sprintf("Mail is in danger: %s to mend now.", plural(int64(counts[finding.Danger]), "thing"))
	case r.Worst == finding.Fault:
		return fmt.Sprintf("Mail is not in danger, but %s to mend.", plural(int64(counts[finding.Fault]), "thing"))
	case r.Worst == finding.Advice:
		return "Nothing is wrong; some things could be better."
	}
	return "All is well."
}

// finding prints one. Its texts may quote outsiders.
func (d *doctorView) finding(f *finding.Finding) {
	what := f.What
	if f.Subject != "" && !strings.Contains(what, f.Subject) {
		what = f.Subject + ": " + what
	}
	if f.Weight == finding.Healthy {
		d.lines("  ", what)
		return
	}
	fmt.Fprintln(d.w)
	d.lines("  ", what+" ["+f.Code+"]")
	d.lines("    Why it matters: ", f.Why)
	d.lines("    What to do:     ", f.Fix)
}

// lines prints text behind a label, each further line below the first, wrapped on a terminal.
func (d *doctorView) lines(label, text string) {
	if text == "" {
		return
	}
	room := 0
	if s, ok := d.w.(*screen); ok && s.width > 0 {
		room = max(s.width-len(label), 40)
	}
	for line := range strings.SplitSeq(text, "\n") {
		parts := []string{mail.Printable(line)}
		if room > 0 {
			parts = wrap(parts[0], room)
		}
		for _, part := range parts {
			fmt.Fprintln(d.w, label+part)
			label = strings.Repeat(" ", len(label))
		}
	}
}

// changes prints what came and went between two examinations.
func (d *doctorView) changes(before, now *doctor.Report) error {
	came, went := doctorDiff(before, now), doctorDiff(now, before)
	at := now.Time.Local().Format("15:04:05")
	for i := range came {
		fmt.Fprintf(d.w, "\n%s  NEW, %s\n", at, came[i].Weight)
		d.finding(&came[i])
	}
	for i := range went {
		fmt.Fprintf(d.w, "\n%s  OVER  %s: %s [%s]\n", at, mail.Printable(went[i].Subject), mail.Printable(went[i].What),
			went[i].Code)
	}
	if len(came)+len(went) == 0 {
		return nil
	}
	_, err := fmt.Fprintln(d.w)
	return err
}

// doctorDiff are the findings of the second report that the first has not, told apart by kind and subject: an age that
// changes is no news. Where one report has more of them than the other, what they say counts too. What is healthy does
// not count.
func doctorDiff(first, second *doctor.Report) (more []finding.Finding) {
	type kind struct {
		code, subject string
		weight        finding.Weight
	}
	kindOf := func(f *finding.Finding) kind { return kind{f.Code, f.Subject, f.Weight} }
	before, now, known := map[kind]int{}, map[kind]int{}, map[string]bool{}
	for i := range first.Findings {
		before[kindOf(&first.Findings[i])]++
		known[first.Findings[i].What] = true
	}
	for i := range second.Findings {
		now[kindOf(&second.Findings[i])]++
	}
	for i := range second.Findings {
		f := &second.Findings[i]
		k := kindOf(f)
		if f.Weight != finding.Healthy && (before[k] == 0 || now[k] > before[k] && !known[f.What]) {
			more = append(more, *f)
		}
	}
	return more
}
