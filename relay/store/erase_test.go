package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/queue"
)

// What was delivered does not stay in the file or its log: not in free pages, not in pages that others use now.
func TestDeliveredContentsAreErased(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Daemon: true})
	now := time.Now()
	const secret = "the eagle lands at midnight"
	for i, size := range []int{100, 5000, 40_000, 900_000} {
		m := benchMessage(now, "alice", true)
		m.ID += string(rune('a' + i))
		content := bytes.Repeat([]byte(secret+"\r\n"), size/len(secret)+1)
		m.Size = int64(len(content))
		if err := s.Add(t.Context(), queue.NewMessage{Message: m, Content: mail.BytesContent(content)}); err != nil {
			t.Fatal(err)
		}
		if err := s.Finish(t.Context(), attempt(1, m.ID), "node-1", queue.Outcome{Remove: true}); err != nil {
			t.Fatal(err)
		}
	}
	// The log is emptied once nothing is written any more.
	deadline := time.Now().Add(time.Minute)
	for {
		var left int
		fileOnly(t)
		for _, name := range []string{FileName, FileName + "-wal"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			left += bytes.Count(b, []byte("eagle"))
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d times it is still there", left)
		}
		<-time.After(50 * time.Millisecond)
	}
}
