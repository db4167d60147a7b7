//go:build unix

package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/convhost/convhost/abi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pair(t testing.TB) (Conn, Conn) {
	t.Helper()
	a, f, err := SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewSocket(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// Many senders, frames of all sizes, every third with a descriptor: each arrives whole and with its own.
func TestSocketKeepsFramesAndDescriptorsTogether(t *testing.T) {
	a, b := pair(t)
	dir := t.TempDir()
	const senders, each = 4, 60
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprintf("%d-%d", s, i)
				f := &abi.DataFrame{Seq: uint64(s*each + i + 1), Data: []byte(strings.Repeat(name, 1+i*i*3))}
				var fd *os.File
				if i%3 == 0 {
					if err := os.WriteFile(dir+"/"+name, []byte(name), 0o600); err != nil {
						t.Error(err)
						return
					}
					fd, _ = os.Open(dir + "/" + name)
				}
				if err := a.Send(f, fd); err != nil {
					t.Error(err)
				}
				if fd != nil {
					fd.Close()
				}
			}
		})
	}
	for range senders * each {
		f, fd, err := b.Recv()
		if err != nil {
			t.Fatal(err)
		}
		s, i := int(f.Seq-1)/each, int(f.Seq-1)%each
		name := fmt.Sprintf("%d-%d", s, i)
		if string(f.Data) != strings.Repeat(name, 1+i*i*3) {
			t.Errorf("frame %s arrived with %d bytes", name, len(f.Data))
		}
		if (fd != nil) != (i%3 == 0) || f.Descriptor != (fd != nil) {
			t.Fatalf("frame %s: descriptor %v", name, fd != nil)
		}
		if fd != nil {
			if got, _ := io.ReadAll(fd); string(got) != name {
				t.Errorf("frame %s came with the descriptor of %q", name, got)
			}
			fd.Close()
		}
	}
	wg.Wait()
}

func TestSocketErrors(t *testing.T) {
	claim := abi.Marshal(&abi.DataFrame{Descriptor: true})
	for name, test := range map[string]struct {
		bytes []byte
		want  error
	}{
		"end":            {nil, io.EOF},
		"cut length":     {[]byte{1, 0}, io.ErrUnexpectedEOF},
		"cut frame":      {[]byte{9, 0, 0, 0, 8}, io.ErrUnexpectedEOF},
		"long":           {[]byte{0, 0, 0, 0x80}, abi.ErrPlugin},
		"not protobuf":   {[]byte{1, 0, 0, 0, 0xff}, abi.ErrPlugin},
		"no descriptor":  {append(binary.LittleEndian.AppendUint32(nil, uint32(len(claim))), claim...), abi.ErrPlugin},
		"after a frame":  {[]byte{0, 0, 0, 0, 7, 0, 0}, nil},
		"two good ones.": {[]byte{0, 0, 0, 0, 0, 0, 0, 0}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			if _, err := a.(*socketConn).c.Write(test.bytes); err != nil {
				t.Fatal(err)
			}
			a.Close()
			if _, _, err := b.Recv(); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}
