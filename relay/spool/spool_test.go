package spool

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"postern/internal/errno"
	"postern/mail"
)

func open(t testing.TB, o Options) *Spool {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func octets(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// write writes b in pieces of n octets.
func write(t testing.TB, b *Buffer, p []byte, n int) {
	t.Helper()
	for len(p) > 0 {
		n := min(n, len(p))
		if m, err := b.Write(p[:n]); err != nil || m != n {
			t.Fatalf("Write = %d, %v", m, err)
		}
		p = p[n:]
	}
}

func content(t testing.TB, b *Buffer) mail.Content {
	t.Helper()
	c, err := b.Content()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func readAll(t testing.TB, c mail.Content) []byte {
	t.Helper()
	r, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestBufferKeepsOctets(t *testing.T) {
	s := open(t, Options{MemoryPerMessage: 100 << 10, MemoryTotal: 1 << 20})
	for _, size := range []int{0, 1, 4 << 10, 8<<10 + 1, 64 << 10, 100 << 10, 100<<10 + 1, 300 << 10} {
		for _, piece := range []int{1 << 20, 33 << 10, 1000, 1 + size/5000} {
			for _, hint := range []int64{0, int64(size), 10, 90 << 10, 1 << 40} {
				want := octets(size)
				b := s.Buffer(hint)
				write(t, b, want, piece)
				c := content(t, b)
				if b.Size() != int64(size) || c.Size() != int64(size) || !bytes.Equal(readAll(t, c), want) {
					t.Fatalf("size %d, pieces of %d, hint %d: octets changed", size, piece, hint)
				}
				inMemory := size <= 100<<10 && hint <= 100<<10
				if got := c.Bytes(); (got != nil) != (inMemory || size == 0) || got != nil && !bytes.Equal(got, want) {
					t.Fatalf("size %d, pieces of %d, hint %d: in memory = %v", size, piece, hint, got != nil)
				}
				b.Close()
			}
		}
	}
	if got := s.Stats(); got != (Stats{}) {
		t.Errorf("after all are closed: %+v", got)
	}
}

// TestSmallMessagesStaySmall: a declared size alone takes no memory.
func TestSmallMessagesStaySmall(t *testing.T) {
	s := open(t, Options{})
	for _, hint := range []int64{0, 4 << 10, 2 << 20} {
		b := s.Buffer(hint)
		write(t, b, octets(4<<10), 4<<10)
		if got := s.Stats().Memory; got > firstMost {
			t.Errorf("4 KiB with a declared size of %d take %d", hint, got)
		}
		b.Close()
	}
}

func TestMemoryTotal(t *testing.T) {
	s := open(t, Options{MemoryPerMessage: 64 << 10, MemoryTotal: 100 << 10})
	want := octets(60 << 10)
	a, b := s.Buffer(60<<10), s.Buffer(60<<10)
	write(t, a, want, 10<<10)
	write(t, b, want, 10<<10)
	first, second := content(t, a), content(t, b)
	if first.Bytes() == nil || second.Bytes() != nil {
		t.Errorf("in memory: %v, %v; want the first only", first.Bytes() != nil, second.Bytes() != nil)
	}
	if got := s.Stats(); got.Memory > 100<<10 || got.Disk != 60<<10 {
		t.Errorf("%+v is held", got)
	}
	if !bytes.Equal(readAll(t, first), want) || !bytes.Equal(readAll(t, second), want) {
		t.Error("octets changed")
	}
	a.Close()
	c := s.Buffer(60 << 10)
	write(t, c, want, 10<<10)
	if content(t, c).Bytes() == nil {
		t.Error("freed memory is not used")
	}
	b.Close()
	c.Close()
	c.Close()
	if got := s.Stats(); got != (Stats{}) {
		t.Errorf("after all are closed: %+v", got)
	}
}

func wantReply(t *testing.T, err error, code int, enhanced string) {
	t.Helper()
	reply, ok := mail.ReplyFor(err)
	if !ok || reply.Code != code || reply.Enhanced != enhanced {
		t.Errorf("error is %v, want %d %s", err, code, enhanced)
	}
}

// TestDiskFull: over the limit is 452 4.3.1, and nothing cut comes out afterwards.
func TestDiskFull(t *testing.T) {
	s := open(t, Options{MemoryPerMessage: 10 << 10, DiskTotal: 100 << 10})
	b := s.Buffer(0)
	write(t, b, octets(90<<10), 9000)
	if n, err := b.Write(octets(20 << 10)); n != 0 {
		t.Errorf("wrote %d over the limit", n)
	} else {
		wantReply(t, err, 452, "4.3.1")
	}
	_, err := b.Write([]byte("x"))
	wantReply(t, err, 452, "4.3.1")
	_, err = b.Content()
	wantReply(t, err, 452, "4.3.1")
	b.Close()
	if got := s.Stats(); got != (Stats{}) {
		t.Errorf("after Close: %+v", got)
	}
}

func TestTrouble(t *testing.T) {
	full := &os.PathError{Op: "write", Path: "x", Err: errno.NoSpace}
	wantReply(t, trouble(full), 452, "4.3.1")
	wantReply(t, trouble(errno.Quota), 452, "4.3.1")
	wantReply(t, trouble(syscall.EIO), 451, "4.3.0")
	if !errors.Is(trouble(full), errno.NoSpace) {
		t.Error("the cause is lost")
	}
}

// TestDeviceFull writes to a device that is always full, through the same path as a file.
func TestDeviceFull(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	b := open(t, Options{}).Buffer(0)
	b.file, b.piece = f, make([]byte, 0, pieceSize)
	b.Write([]byte("small, so gathered"))
	_, err = b.Content()
	wantReply(t, err, 452, "4.3.1")
	_, err = b.Content()
	wantReply(t, err, 452, "4.3.1")
	b.Close()
}

func TestDirectoryGone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, MemoryPerMessage: 10})
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	_, err := s.Buffer(0).Write(octets(20))
	wantReply(t, err, 451, "4.3.0")
	b := s.Buffer(0)
	b.Close()
	_, err = b.Content()
	wantReply(t, err, 451, "4.3.0")
	if _, err := New(Options{Dir: dir}); err == nil {
		t.Error("a directory that is not there is taken")
	}
}

// TestNoNames: files have no name while they are used, and what an earlier process left goes.
func TestNoNames(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, prefix+"left")
	other := filepath.Join(dir, "store.db")
	for _, name := range []string{left, other} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, Options{Dir: dir, MemoryPerMessage: 10})
	b := s.Buffer(0)
	write(t, b, octets(100<<10), 1000)
	if mode, err := b.file.Stat(); err != nil || mode.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", mode.Mode(), err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 || names[0].Name() != "store.db" {
		t.Errorf("the directory holds %v, %v", names, err)
	}
	b.Close()
}

// TestClose: readers that are open go on to their end, new ones are refused.
func TestClose(t *testing.T) {
	for _, limit := range []int64{1 << 20, 10} {
		s := open(t, Options{MemoryPerMessage: limit})
		want := octets(50 << 10)
		b := s.Buffer(0)
		write(t, b, want, 1000)
		c := content(t, b)
		r, err := c.Open()
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		if _, err := b.Write([]byte("x")); err == nil {
			t.Error("a closed buffer takes octets")
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("an open reader got %d octets, %v", len(got), err)
		}
		r.Close()
		r.Close()
		if _, err := b.Content(); err != nil {
			t.Errorf("Content again: %v", err)
		}
		if limit == 10 {
			if _, err := c.Open(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Open after Close: %v", err)
			}
			if _, err := c.(*fileOrMemory).file.Stat(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("the file is still open: %v", err)
			}
		}
	}
}

// TestRetain: what is retained stays readable, and counted, until it is let go.
func TestRetain(t *testing.T) {
	s := open(t, Options{MemoryPerMessage: 10})
	b := s.Buffer(0)
	want := octets(5000)
	write(t, b, want, 1000)
	c := content(t, b)
	release := b.Retain()
	b.Close()
	b.Close()
	if !bytes.Equal(readAll(t, c), want) || s.Stats().Disk != 5000 {
		t.Errorf("a retained message is gone: %+v", s.Stats())
	}
	release()
	release()
	if _, err := c.Open(); !errors.Is(err, os.ErrClosed) || s.Stats() != (Stats{}) {
		t.Errorf("after its release: %v, %+v", err, s.Stats())
	}
}

func TestWriteAfterContent(t *testing.T) {
	b := open(t, Options{}).Buffer(0)
	write(t, b, []byte("message"), 10)
	c := content(t, b)
	if _, err := b.Write([]byte("more")); err == nil {
		t.Error("the content grew")
	}
	if !bytes.Equal(readAll(t, c), []byte("message")) {
		t.Error("the content changed")
	}
	b.Close()
}

// TestCutFile: a file that lost its end gives an error, never a short message.
func TestCutFile(t *testing.T) {
	s := open(t, Options{MemoryPerMessage: 10})
	b := s.Buffer(0)
	write(t, b, octets(1000), 100)
	c := content(t, b)
	if err := b.file.Truncate(500); err != nil {
		t.Fatal(err)
	}
	r, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("reading a cut file: %v", err)
	}
	r.Close()
	b.Close()
}

func TestReadersAreIndependent(t *testing.T) {
	for _, limit := range []int64{1 << 20, 10} {
		s := open(t, Options{MemoryPerMessage: limit})
		want := octets(200 << 10)
		b := s.Buffer(0)
		write(t, b, want, 5000)
		c := content(t, b)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if !bytes.Equal(readAll(t, c), want) {
					t.Error("octets changed")
				}
			})
		}
		wg.Wait()
		b.Close()
	}
}

func TestParallelBuffers(t *testing.T) {
	s := open(t, Options{MemoryPerMessage: 64 << 10, MemoryTotal: 128 << 10})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			want := octets(i * 10000)
			b := s.Buffer(int64(i%3) * 50000)
			defer b.Close()
			write(t, b, want, 700)
			if !bytes.Equal(readAll(t, content(t, b)), want) {
				t.Errorf("octets of buffer %d changed", i)
			}
		})
	}
	wg.Wait()
	if got := s.Stats(); got != (Stats{}) {
		t.Errorf("after all are closed: %+v", got)
	}
}

func TestJoin(t *testing.T) {
	header := []byte("Received: x\r\nA: b\r\n\r\n")
	for _, size := range []int{10, 60 << 10, 70 << 10, 300 << 10} {
		for _, limit := range []int64{1 << 20, 5} {
			s := open(t, Options{MemoryPerMessage: limit})
			old := append([]byte("A: b\r\n\r\n"), octets(size)...)
			b := s.Buffer(0)
			write(t, b, old, 9999)
			c := Join(header, content(t, b), 8)
			want := append(append([]byte{}, header...), old[8:]...)
			if c.Size() != int64(len(want)) || !bytes.Equal(readAll(t, c), want) {
				t.Errorf("size %d, memory %d: octets differ", size, limit)
			}
			small := limit > 10 && len(want) <= joinCopy
			if got := c.Bytes(); (got != nil) != small || small && !bytes.Equal(got, want) {
				t.Errorf("size %d, memory %d: Bytes is set: %v", size, limit, got != nil)
			}
			if p, ok := c.(interface{ Pieces() [][]byte }); ok {
				if got := p.Pieces(); (got != nil) != (limit > 10) ||
					got != nil && !bytes.Equal(bytes.Join(got, nil), want) {
					t.Errorf("size %d, memory %d: wrong pieces", size, limit)
				}
			}
			var out bytes.Buffer
			r, err := c.Open()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(&out, r); err != nil || !bytes.Equal(out.Bytes(), want) {
				t.Errorf("size %d, memory %d: copied %d octets, %v", size, limit, out.Len(), err)
			}
			r.Close()
			b.Close()
		}
	}
}

func TestJoinOffsets(t *testing.T) {
	body := mail.BytesContent("0123456789")
	for offset, want := range map[int64]string{0: "h0123456789", 9: "h9", 10: "h", 11: "h", -1: "h0123456789"} {
		if got := string(Join([]byte("h"), body, offset).Bytes()); got != want {
			t.Errorf("offset %d gives %q, want %q", offset, got, want)
		}
	}
}

// TestMemoryIsNotReused: a slice that outlives its message keeps its octets.
func TestMemoryIsNotReused(t *testing.T) {
	s := open(t, Options{})
	b := s.Buffer(0)
	want := octets(5000)
	write(t, b, want, 5000)
	kept := content(t, b).Bytes()
	b.Close()
	for range 50 {
		other := s.Buffer(0)
		write(t, other, make([]byte, 8000), 8000)
		other.Close()
	}
	runtime.GC()
	if !bytes.Equal(kept, want) {
		t.Error("octets of a closed message were overwritten")
	}
}

func BenchmarkBuffer(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20, 8 << 20} {
		b.Run(map[int]string{4 << 10: "4KiB", 1 << 20: "1MiB", 8 << 20: "8MiB-file"}[size], func(b *testing.B) {
			s := open(b, Options{})
			p := octets(size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				buf := s.Buffer(int64(size))
				write(b, buf, p, 32<<10)
				c := content(b, buf)
				r, err := c.Open()
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
				r.Close()
				buf.Close()
			}
		})
	}
}
