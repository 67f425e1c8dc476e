package acme

import (
	"bytes"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// What is in use is what was checked: no chain of a CA gets past the one and not past the other.
func TestHostileChain(t *testing.T) {
	for _, c := range []struct {
		name   string
		mangle func(leaf, root []byte) []byte
		want   string // in the error; "": it is taken
	}{
		{"wrong order", func(leaf, root []byte) []byte {
			return append(block("CERTIFICATE", root), block("CERTIFICATE", leaf)...)
		}, "another key"},
		{"garbage", func([]byte, []byte) []byte { return []byte("what is this") }, "certificate"},
		{"nothing", func([]byte, []byte) []byte { return nil }, "certificate"},
		{"broken", func([]byte, []byte) []byte { return block("CERTIFICATE", []byte("x")) }, "certificate"},
		{"a disguise", func(leaf, root []byte) []byte {
			return append(block("X", leaf), block("CERTIFICATE", root)...)
		}, `"X" is among`},
		{"a private key", func(leaf, root []byte) []byte {
			return append(block("CERTIFICATE", leaf), block("PRIVATE KEY", root)...)
		}, `"PRIVATE KEY" is among`},
		{"garbage after the leaf", func(leaf, root []byte) []byte {
			return append(block("CERTIFICATE", leaf), block("CERTIFICATE", root[:40])...)
		}, "can be read"},
		{"endless", func(leaf, root []byte) []byte {
			return append(block("CERTIFICATE", leaf), bytes.Repeat(block("CERTIFICATE", root), 500)...)
		}, "more than 10 certificates"},
		{"the leaf alone", func(leaf, _ []byte) []byte { return block("CERTIFICATE", leaf) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, of *office) {
				of.mangle = c.mangle
				New(of.o).pass(t.Context())
				st := of.state(t)
				if c.want == "" {
					if st.Failures != 0 || len(of.now()) != 1 {
						t.Errorf("%+v", st)
					}
					return
				}
				if st.Failures != 1 || !strings.Contains(st.Error, c.want) || len(of.now()) != 0 {
					t.Errorf("%+v, %d in use, want %q", st, len(of.now()), c.want)
				}
				if strings.Contains(st.Error, "%!") {
					t.Errorf("badly written: %q", st.Error)
				}
			})
		})
	}
}

// However long a CA says to wait before the next look, an attempt ends, and does not ask without pause.
func TestHostilePolling(t *testing.T) {
	for _, after := range []string{"31536000", "-1", "0", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT",
		"Thu, 01 Jan 1970 00:00:00 GMT", "soon"} {
		for _, where := range []string{"/order/1", "/finalize", "/authz"} {
			t.Run(after+where, func(t *testing.T) {
				bubble(t, func(t *testing.T, of *office) {
					of.answer = func(w http.ResponseWriter, path string) bool {
						if path != where && !(where == "/finalize" && path == "/order/1") {
							return false
						}
						w.Header().Set("Retry-After", after)
						if where == "/authz" {
							_, _ = w.Write([]byte(`{"status":"pending","identifier":{"type":"dns","value":"` + fakeName +
								`"},"challenges":[{"type":"dns-persist-01","url":"` + of.base +
								`/challenge/dns-persist-01","status":"processing","issuer-domain-names":["ca.example.net"]}]}`))
							return true
						}
						w.Header().Set("Location", of.base+"/order/1")
						_, _ = w.Write([]byte(`{"status":"processing","finalize":"` + of.base + `/finalize"}`))
						return true
					}
					begin := time.Now()
					New(of.o).pass(t.Context())
					if took := time.Since(begin); took > attemptTime+2*time.Minute {
						t.Errorf("it took %s", took)
					}
					n := of.count("/authz") + of.count("/order/1") + of.count("/finalize")
					if n > 400 {
						t.Errorf("%d requests", n)
					}
					if st := of.state(t); where != "/order/1" && st.Failures != 1 {
						t.Errorf("%+v", st)
					}
				})
			})
		}
	}
}
