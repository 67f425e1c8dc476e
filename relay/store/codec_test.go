package store

import (
	"bytes"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
)

// FuzzDecode: whatever stands in a row is decoded without a panic and without much memory, and what is
// decoded is encoded to the same octets again.
func FuzzDecode(f *testing.F) {
	m := benchMessage(time.Unix(0, 0), "alice", true)
	m.Groups = []string{"staff"}
	m.Recipients[0].Reply, m.Recipients[0].Host = mail.R(451, "4.7.1", "later"), "mx.example.net"
	f.Add(encodeFixed(nil, m))
	f.Add(encodeRecipients(nil, m.Recipients))
	f.Add(encodeReply(mail.R(250, "2.0.0", "ok")))
	f.Add([]byte{codecVersion, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m queue.Message
		if decodeFixed(b, &m) == nil {
			again := encodeFixed(nil, &m)
			var n queue.Message
			if err := decodeFixed(again, &n); err != nil || !bytes.Equal(encodeFixed(nil, &n), again) {
				t.Errorf("%x became %x: %v", b, again, err)
			}
		}
		if rs, err := decodeRecipients(b); err == nil {
			again := encodeRecipients(nil, rs)
			if twice, err := decodeRecipients(again); err != nil || !bytes.Equal(encodeRecipients(nil, twice), again) {
				t.Errorf("%x became %x: %v", b, again, err)
			}
		}
		decodeReply(b)
	})
}

func TestNewerCodec(t *testing.T) {
	b := encodeRecipients(nil, nil)
	b[0]++
	if _, err := decodeRecipients(b); err == nil {
		t.Error("a newer version was read as ours")
	}
	if _, err := decodeRecipients(append(encodeRecipients(nil, nil), 0)); err == nil {
		t.Error("octets behind the end were ignored")
	}
}

// Recipients that an earlier version stored, which did not say who spoke, are read.
func TestOlderCodec(t *testing.T) {
	m := benchMessage(time.Unix(0, 0), "alice", true)
	m.Recipients = m.Recipients[:1]
	m.Recipients[0].Reply = mail.R(451, "4.7.1", "later")
	old := encodeRecipients(nil, m.Recipients)
	old = old[:len(old)-3] // the empty host and stage, and no doubt
	old[0] = codecVersion
	rs, err := decodeRecipients(old)
	if err != nil || len(rs) != 1 || rs[0].Reply != m.Recipients[0].Reply || rs[0].Host != "" {
		t.Errorf("got %+v: %v", rs, err)
	}
}
