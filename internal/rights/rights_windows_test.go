package rights

import (
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

func everybodyReads(t *testing.T, path string) {
	t.Helper()
	setList(t, path, "D:P(A;;FA;;;SY)(A;;FA;;;"+me()+")(A;;FR;;;WD)")
}

func setList(t *testing.T, path, list string) {
	t.Helper()
	sd, err := windows.SecurityDescriptorFromString(list)
	if err != nil {
		t.Fatal(err)
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		t.Fatal(err)
	}
	err = windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
	if err != nil {
		t.Fatal(err)
	}
}

// Who counts as somebody else, by access control lists that no file needs to have.
func TestRead(t *testing.T) {
	const users, staff = "S-1-5-32-545", "S-1-5-21-1-2-3-1001"
	for _, c := range []struct {
		list          string
		reads, writes bool
	}{
		{"D:(A;;FA;;;SY)(A;;FA;;;BA)(A;OICIIO;FA;;;CO)(A;;FR;;;" + serviceSID(Service) + ")", false, false},
		{"D:(A;;FA;;;SY)(A;;FR;;;" + users + ")", true, false},
		{"D:(A;;GR;;;WD)", true, false},
		{"D:(A;;GA;;;" + staff + ")", true, true},
		{"D:(A;OICIIO;FA;;;" + users + ")", true, true}, // what is made below has it
		{"D:(A;;0x40000;;;" + staff + ")", false, true}, // may change the list
		{"D:(A;;0x40;;;" + staff + ")", false, true},    // may delete what is in a directory
		{"D:(A;;0x100080;;;WD)", false, false},          // sees that it is there
		{"D:(D;;FA;;;WD)(A;;FR;;;" + staff + ")", true, false},
		{"D:", false, false},
	} {
		sd, err := windows.SecurityDescriptorFromString(c.list)
		if err != nil {
			t.Fatalf("%s: %v", c.list, err)
		}
		dacl, _, err := sd.DACL()
		if err != nil {
			t.Fatalf("%s: %v", c.list, err)
		}
		var r Rights
		if err := r.read(dacl); err != nil || r.OthersRead != c.reads || r.OthersWrite != c.writes {
			t.Errorf("%s: %+v, %v", c.list, r, err)
		}
	}
}

// The command keeps those who need the file and names those who lose it.
func TestCommand(t *testing.T) {
	r := Rights{said: said{owner: "S-1-5-21-1-2-3-1001", others: []string{"S-1-5-32-545", "S-1-1-0"}}}
	got := r.Command("o-rwx", `C:\ProgramData\Postern\relay.toml`)
	for _, part := range []string{`icacls "C:\ProgramData\Postern\relay.toml" /inheritance:r /grant:r *S-1-5-18:F`,
		"*" + serviceSID(Service) + ":R ", "*S-1-5-21-1-2-3-1001:F", "/remove:g *S-1-5-32-545 *S-1-1-0"} {
		if !strings.Contains(got, part) {
			t.Errorf("%s\nhas no %s", got, part)
		}
	}
}
