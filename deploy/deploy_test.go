// Package deploy holds what operators install; its tests keep that in step with the program.
package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/testkit"
)

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// settings returns the values of each key of a unit.
func settings(unit string) map[string][]string {
	all := make(map[string][]string)
	for line := range strings.Lines(unit) {
		key, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if found && !strings.HasPrefix(key, "#") {
			all[key] = append(all[key], value)
		}
	}
	return all
}

func TestUnit(t *testing.T) {
	got := settings(read(t, "postern.service"))
	for key, want := range map[string]string{
		"Type":                  "notify",
		"StartLimitIntervalSec": "0",
		"Restart":               "on-failure",
		"RestartSec":            "5s",
		"ExecStart":             "/usr/bin/postern serve --config /etc/postern/relay.toml",
		"ExecStartPre":          "/usr/bin/postern check --starting --config /etc/postern/relay.toml",
		"ConditionPathExists":   "/etc/postern/relay.toml",
		"User":                  "postern",
		"StateDirectory":        "postern",
		"StateDirectoryMode":    "0700",
		"AmbientCapabilities":   "CAP_NET_BIND_SERVICE",
		"CapabilityBoundingSet": "CAP_NET_BIND_SERVICE",
		"NoNewPrivileges":       "yes",
		"Environment":           "POSTERN_BOOT_ID=%b", // bootEnv of relay/store: ProcSubset hides where else it stands
		"ProtectSystem":         "strict",
		"LimitCORE":             "0",
	} {
		if !slices.Equal(got[key], []string{want}) {
			t.Errorf("%s=%q, want %q", key, got[key], want)
		}
	}
	reload := []string{"/usr/bin/postern check --config /etc/postern/relay.toml", "/bin/kill -HUP $MAINPID"}
	if !slices.Equal(got["ExecReload"], reload) {
		t.Errorf("ExecReload=%q, want %q", got["ExecReload"], reload)
	}
	if !strings.Contains(read(t, "postern.sysusers"), "\nu postern - ") {
		t.Error("the user of the unit is not made")
	}
}

// The commands that the unit's comment tells people to run make its user, by systemd's own word.
func TestUserIsMade(t *testing.T) {
	testkit.NeedRoot(t)
	tool := testkit.Need(t, "systemd-sysusers")
	var told []string
	for line := range strings.Lines(read(t, "postern.service")) {
		if command := strings.TrimSpace(strings.TrimPrefix(line, "#")); strings.Contains(command, "sysusers") {
			told = append(told, command)
		}
	}
	if len(told) != 2 {
		t.Fatalf("the comment says %q", told)
	}
	root := t.TempDir()
	install, make := strings.Fields(told[0]), strings.Fields(told[1])
	install[4], install[5] = filepath.Base(install[4]), filepath.Join(root, install[5])
	if out, err := exec.Command(install[0], install[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", install, err, out)
	}
	if out, err := exec.Command(tool, append([]string{"--root=" + root}, make[1:]...)...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", make, err, out)
	}
	users, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil || !strings.Contains(string(users), "\npostern:") && !strings.HasPrefix(string(users), "postern:") {
		t.Errorf("%s, %v", users, err)
	}
}

// systemd itself reads the unit and judges how little it exposes.
func TestUnitBySystemd(t *testing.T) {
	analyze := testkit.Need(t, "systemd-analyze")
	// verify looks for the program of the unit, which is not installed here, and for its user.
	unit := strings.ReplaceAll(read(t, "postern.service"), "/usr/bin/postern", "/bin/true")
	path := filepath.Join(t.TempDir(), "postern.service")
	if err := os.WriteFile(path, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "postern.service") {
			t.Error(strings.TrimSpace(line))
		}
	}
	if err != nil && strings.Contains(string(out), "postern.service") {
		t.Error(err)
	}
	// Exposure is from 0 (none) to 100; sandboxed network services of distributions lie near 15 to 20.
	out, err = exec.Command(analyze, "security", "--offline=yes", "--threshold=19", path).CombinedOutput()
	if err != nil {
		t.Errorf("too exposed: %v\n%s", err, out)
	}
}

func TestContainerfile(t *testing.T) {
	file := read(t, "Containerfile")
	_, final, found := strings.Cut(file, "\nFROM scratch\n")
	if !found || strings.Contains(final, "\nFROM ") {
		t.Fatal("the last stage is not from scratch")
	}
	for _, want := range []string{"\nUSER 65532:65532\n", "\nVOLUME /var/lib/postern\n",
		"--chown=65532:65532 /out/data /var/lib/postern", "ca-certificates.crt", `CMD ["serve"]`} {
		if !strings.Contains(final, want) {
			t.Errorf("the last stage lacks %q", want)
		}
	}
	if !strings.Contains(file, "RUN CGO_ENABLED=0 ") {
		t.Error("the binary is not static")
	}
	version := strings.Fields(strings.SplitAfter(read(t, "../go.mod"), "\ngo ")[1])[0]
	minor := strings.Join(strings.Split(version, ".")[:2], ".")
	if !strings.Contains(file, "golang:"+minor+"-") {
		t.Errorf("not built with Go %s as go.mod says", minor)
	}
}

// What scripts tell the linker has the name of a variable that there is: else nothing is told, without an error.
func TestLinkerIsToldWhatThereIs(t *testing.T) {
	scripts, err := filepath.Glob("../scripts/*")
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{"main": read(t, "../cmd/postern/version.go"),
		"postern/internal/release": read(t, "../internal/release/release.go")}
	seen := 0
	for _, path := range append(scripts, "Containerfile", "../Makefile") {
		for _, m := range regexp.MustCompile(`-X ([\w./-]+)\.(\w+)=`).FindAllStringSubmatch(read(t, path), -1) {
			seen++
			if !regexp.MustCompile(`(?m)^(var|\t)\s*` + m[2] + `\s+string`).MatchString(sources[m[1]]) {
				t.Errorf("%s: there is no variable %s.%s", path, m[1], m[2])
			}
		}
	}
	if seen == 0 {
		t.Error("nothing is told")
	}
}
