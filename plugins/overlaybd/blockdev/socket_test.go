package blockdev

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

func socket(t *testing.T, d Disk) Device {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") // short: the path of a socket has some 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	dev, err := Open(t.Context(), Config{Disk: d, Dir: dir, Label: "x", Backend: "socket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

// A client that negotiated loses its connection when the socket is removed, and the device is done.
func TestSocketEnds(t *testing.T) {
	for name, end := range map[string]func(Device) error{
		"close": Device.Close,
		"clean": func(d Device) error { return Clean(t.Context(), d.State(), false) },
	} {
		t.Run(name, func(t *testing.T) {
			dev := socket(t, &memory{b: bytes.Repeat([]byte("0123456789abcdef"), 32)})
			conn, err := net.Dial("unix", dev.State().File)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			hello := make([]byte, 18)
			if _, err := io.ReadFull(conn, hello); err != nil || string(hello[:8]) != "NBDMAGIC" {
				t.Fatalf("%q, %v", hello, err)
			}
			msg := binary.BigEndian.AppendUint32(nil, 3)
			msg = append(msg, "IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x00"...)
			conn.Write(msg)
			if _, err := io.ReadFull(conn, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			if err := end(dev); err != nil {
				t.Fatal(err)
			}
			select {
			case <-dev.Done():
			case <-time.After(10 * time.Second):
				t.Fatal("the device is not done")
			}
			if n, err := conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("%d bytes came after the end", n)
			}
			if err := Clean(t.Context(), dev.State(), false); err != nil {
				t.Error(err)
			}
		})
	}
}

// qemu and libnbd read the disk.
func TestSocketJudges(t *testing.T) {
	m := &memory{b: bytes.Repeat([]byte("0123456789abcdef"), 1<<16)}
	for _, c := range [][]string{{"nbdcopy"}, {"qemu-img", "convert", "-f", "raw", "-O", "raw"}} {
		t.Run(c[0], func(t *testing.T) {
			if _, err := exec.LookPath(c[0]); err != nil {
				if os.Getenv("CONVHOST_REQUIRE_JUDGES") != "" {
					t.Fatalf("%s is not installed", c[0])
				}
				t.Skipf("skipped: no %s", c[0])
			}
			dev := socket(t, ReadOnly(m))
			out := t.TempDir() + "/out"
			args := append(append([]string{}, c[1:]...), dev.Path(), out)
			if b, err := exec.Command(c[0], args...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, b)
			}
			if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, m.b) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}
