package relay

import (
	"context"

	"postern/operate"
	"postern/relay/doctor"
	"postern/relay/finding"
)

// examine is the doctor's daily look at what nothing else watches. It is asked as by `postern doctor`, so only where
// there is a configuration file to read.
func (s *Server) examine(ctx context.Context) ([]finding.Finding, error) {
	o := s.operations.Doctor.ExamOptions(operate.LookOptions{})
	o.Only = operate.Unwatched
	r, err := doctor.Examine(ctx, o)
	if err != nil {
		return nil, err
	}
	return r.Findings, nil
}
