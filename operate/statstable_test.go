package operate

import "testing"

func TestCSVIsNoFormula(t *testing.T) {
	for cell, want := range map[string]string{"=1+1": "'=1+1", "+49": "'+49", "-x": "'-x", "@SUM": "'@SUM", "-": "-",
		"": "", "anna": "anna", "a=b": "a=b", "\t=1": "'\t=1"} {
		if got := csvSafe(cell); got != want {
			t.Errorf("%q becomes %q", cell, got)
		}
	}
}
