package rights

import "testing"

// The SID of TrustedInstaller is Microsoft's own example of one that follows from the name.
func TestServiceSID(t *testing.T) {
	const want = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
	if got := serviceSID("TrustedInstaller"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if serviceSID("postern") != serviceSID("Postern") {
		t.Error("the name of a service has no case")
	}
}
