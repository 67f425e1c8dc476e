package console

import (
	"time"

	"postern/operate"
	"postern/relay/doctor"
	"postern/relay/finding"
)

// doctorPage shows everything that can be wrong.
var doctorPage = page{path: "/doctor", title: "Doctor", menu: true, needs: operate.SeeDoctor, sheet: "doctor",
	show: showDoctor, actions: []action{
		{path: "/doctor/act/run", needs: operate.Examine, do: runDoctor},
	}}

// viewDoctor is the body of the page.
type doctorView struct {
	Report   *doctor.Report // nil: nobody has examined since the start
	Findings findings
	Counts   []count
	Icon     string
	MayRun   bool
	Stale    bool // older than a day
}

func showDoctor(v *visit) (any, error) {
	r, err := v.console.Operations.Doctor.Last(v.actor)
	if err != nil {
		return nil, err
	}
	return viewDoctor(v, r), nil
}

func viewDoctor(v *visit, r *doctor.Report) *doctorView {
	view := &doctorView{Report: r, MayRun: v.may(operate.Examine)}
	if r != nil {
		view.Findings, view.Counts = findingsOf(v, r.Findings, ""), countFindings(v, r.Findings)
		view.Icon, _ = weightOf(v, finding.Worst(r.Findings))
		view.Stale = v.now.Sub(r.Time) > 24*time.Hour
	}
	return view
}

// runDoctor examines everything, which may take minutes.
func runDoctor(v *visit) (string, any, error) {
	bePatient(v, longestExam)
	if _, err := v.console.Operations.Doctor.Examine(v.Context(), v.actor); err != nil {
		return "", nil, err
	}
	return "/doctor", nil, nil
}

// longestExam bounds an examination: its examiners have two minutes at most and look four at a time.
const longestExam = 6 * time.Minute
