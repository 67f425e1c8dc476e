package policy_test

import (
	"testing"
	"time"

	"postern/policy"
	"postern/policy/policytest"
)

func TestShared(t *testing.T) {
	policytest.RunSharedLimits(t, func(_ *testing.T, now func() time.Time) policy.SharedLimits {
		return policytest.NewShared(now)
	})
}
