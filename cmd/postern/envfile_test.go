package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseEnv(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                              "",
		"A=b\n":                         "A=b",
		"A=b":                           "A=b",
		"A=b\r\nB=c\r\n":                "A=b|B=c",
		"# no\n; no\n\n  A = b c  \n":   "A=b c",
		"A=b # c\n":                     "A=b # c",
		"A=\nB=\"\"\nC=''\n":            "A=|B=|C=",
		"A=\"b c \"\n":                  "A=b c ",
		"A='b \\ $c'\n":                 `A=b \ $c`,
		`A="b \" \\ \$c \n"` + "\n":     `A=b " \ $c \n`,
		`A=b\ c\\d` + "\n":              `A=b c\d`,
		"A=b\\\nc\nB=d\n":               "A=bc|B=d",
		"A=\"b\nc\"\nB=d\n":             "A=b\nc|B=d",
		"A=\"b\"'c'd\n":                 "A=bcd",
		"A=b\"c\"\n":                    "A=b\"c\"",
		"A=b=c\n":                       "A=b=c",
		"A=b\nA=c\n":                    "A=c",
		"A=p@ss#word;x\n":               "A=p@ss#word;x",
		"# a comment \\\nA=b\n":         "A=b",
		"A=\"open\n":                    "A=open\n",
		"export A=b\nB=c\n1A=b\nword\n": "B=c|!1|!3|!4",
		"=b\n":                          "|!1",
		"A=\xff\n":                      "|!1",
		"\n\nword\nA=b":                 "A=b|!3",
	} {
		variables, ignored := parseEnv(text)
		var got []string
		for _, v := range variables {
			got = append(got, v.name+"="+v.value)
		}
		joined := strings.Join(got, "|")
		for _, line := range ignored {
			joined += fmt.Sprintf("|!%d", line)
		}
		if joined != want {
			t.Errorf("%q: %q, want %q", text, joined, want)
		}
	}
}

func FuzzParseEnv(f *testing.F) {
	for _, s := range []string{"A=b\n", "A=\"b\\\"\nc\"'d'\\\n", "#x\\\nA=b", "=\n", "A\n=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		variables, ignored := parseEnv(text)
		for _, v := range variables {
			if !validName(v.name) || strings.ContainsRune(v.value, 0) {
				t.Fatalf("%q=%q", v.name, v.value)
			}
		}
		if !slices.IsSorted(ignored) {
			t.Fatal(ignored)
		}
	})
}

// The secrets of the service are there for who checks its configuration by hand.
func TestEnvFile(t *testing.T) {
	const name = "POSTERN_TEST_UPSTREAM_PASSWORD"
	etc := t.TempDir()
	write := func(file, text string, mode os.FileMode) string {
		path := filepath.Join(etc, file)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Mkdir(filepath.Join(etc, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	relay := "hostname = \"relay.example.com\"\ndata_dir = \"data\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n" +
		"[[upstream]]\nname = \"provider\"\nhost = \"smtp.example.net\"\nusername = \"u\"\npassword = \"env:" + name +
		"\"\n"
	config := write("relay.toml", relay, 0o600)
	other := write("other.toml", relay, 0o600)
	run := func(args ...string) (string, error) {
		t.Setenv(name, "")
		os.Unsetenv(name) // t.Setenv brings back what was
		var out bytes.Buffer
		root := rootCommandOf(&app{etc: etc})
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(args)
		err := root.Execute()
		return out.String() + fmt.Sprint(err), err
	}
	loads := func(want bool, args ...string) {
		t.Helper()
		out, err := run(append([]string{"alert", "test"},
			args...)...) // fails for want of an [[alert]], once relay.toml is read
		if got := strings.Contains(out, "there is no [[alert]]"); got != want || err == nil {
			t.Errorf("%q: %s", args, out)
		}
		if strings.Contains(out, "hunter") {
			t.Errorf("the secret is shown: %s", out)
		}
	}
	loads(false, "--config", config)
	if out, _ := run("alert", "test", "--config", config); !strings.Contains(out, "--env-file") {
		t.Errorf("the way out is not named: %s", out)
	}
	elsewhere := write("elsewhere", "# secrets\n"+name+"=\"hunter2\"\nnot a variable\n", 0o600)
	loads(true, "--config", config, "--env-file", elsewhere)
	if out, _ := run("alert", "test", "--config", config, "--env-file", elsewhere); !strings.Contains(out,
		"elsewhere:3: ") {
		t.Errorf("the line that is ignored is not named: %s", out)
	}
	loads(false, "--config", config, "--env-file", filepath.Join(etc, "absent"))
	write("env", name+"='hunter2'\n", 0o600)
	loads(true, "--config", config)
	loads(false, "--config", other) // is not the service's
	t.Setenv(name, "set already")
	root := rootCommandOf(&app{etc: etc})
	root.SetArgs([]string{"version", "--config", config})
	root.SetOut(new(bytes.Buffer))
	if err := root.Execute(); err != nil || os.Getenv(name) != "set already" {
		t.Errorf("%v: a variable that was set became %q", err, os.Getenv(name))
	}
}
