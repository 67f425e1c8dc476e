package console

import (
	"postern/operate"
	"postern/relay/status"
)

// nowPage says whether mail can leave.
var nowPage = page{path: "/", title: "Now", menu: true, needs: operate.SeeStatus, sheet: "now", show: showNow}

// nowView is the body of the page.
type nowView struct {
	*status.Report
}

func showNow(v *visit) (any, error) {
	r, err := v.console.Operations.Status.Report(v.Context(), v.actor)
	if err != nil {
		return nil, err
	}
	return nowView{Report: r}, nil
}
