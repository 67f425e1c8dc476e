package testkit

import (
	"encoding/json"
	"os"
	"testing"
)

const dkimScript = `
import json, os, sys, dkim
table = {k.rstrip(".").lower(): v for k, v in (json.loads(os.environ["KIT_TXT"]) or {}).items()}
def txt(name, timeout=5):
    name = name.decode() if isinstance(name, bytes) else name
    v = table.get(name.rstrip(".").lower())
    return v.encode() if v is not None else None
d = dkim.DKIM(sys.stdin.buffer.read(), minkey=1024)
count = sum(1 for name, _ in d.headers if name.lower() == b"dkim-signature")
if count == 0:
    sys.exit("no DKIM-Signature")
for i in range(count):
    try:
        ok = d.verify(idx=i, dnsfunc=txt)
    except Exception as e:
        sys.exit("signature %d: %s: %s" % (i, type(e).__name__, e))
    if not ok:
        sys.exit("signature %d does not verify" % i)
    print("signature %d verifies, d=%s" % (i, d.domain.decode()))
`

// VerifyDKIM checks every DKIM-Signature of a message with Debian's python3-dkim, which shares no
// code with ours. DNS is asked for nothing: txt maps "selector._domainkey.domain" to the record. A
// message without a signature does not verify.
func VerifyDKIM(t testing.TB, message []byte, txt map[string]string) Output {
	t.Helper()
	python := Need(t, "python3-dkim")
	table, err := json.Marshal(txt)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, message, append(os.Environ(), "KIT_TXT="+string(table)), python, "-c", dkimScript)
}
