package blockdev

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// backends runs a test with each backend that this machine has, and says which it has not.
func backends(t *testing.T, fn func(t *testing.T, backend string)) {
	for _, b := range kernelBackends() {
		t.Run(b.Name, func(t *testing.T) {
			if b.Err != nil {
				t.Skipf("skipped: %v", b.Err)
			}
			fn(t, b.Name)
		})
	}
}

func device(t testing.TB, backend string, d Disk) Device {
	t.Helper()
	dev, err := Open(t.Context(), Config{Disk: d, Dir: t.TempDir(), Label: filepath.Base(t.TempDir()) + t.Name()[:4], Backend: backend})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return dev
}

func TestReadDevice(t *testing.T) {
	backends(t, func(t *testing.T, backend string) {
		m := &memory{b: make([]byte, 8<<20+512)}
		r := rand.NewChaCha8([32]byte{1})
		r.Read(m.b)
		dev := device(t, backend, ReadOnly(m))
		f, err := os.Open(dev.Path())
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		f.Close()
		if err != nil || !bytes.Equal(got, m.b) {
			t.Fatalf("read %d bytes, error %v: not what was presented", len(got), err)
		}
		if w, err := os.OpenFile(dev.Path(), os.O_WRONLY, 0); err == nil {
			_, err = w.Write(make([]byte, 512))
			if err == nil {
				err = w.Sync()
			}
			w.Close()
			if err == nil {
				t.Error("a read-only device was written")
			}
		}
	})
}

func TestFileSystem(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("skipped: no mkfs.ext4")
	}
	backends(t, func(t *testing.T, backend string) {
		m := &memory{b: make([]byte, 64<<20)}
		dev := device(t, backend, m)
		if out, err := exec.Command(mkfs, "-q", dev.Path()).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		dir := t.TempDir()
		if out, err := exec.Command("mount", dev.Path(), dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := make([]byte, 5<<20)
		rand.NewChaCha8([32]byte{2}).Read(want)
		werr := os.WriteFile(dir+"/file", want, 0o600)
		if err := dev.Close(); err == nil {
			t.Error("a mounted device was closed")
		}
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if werr != nil {
			t.Fatal(werr)
		}
		if m.synced == 0 {
			t.Error("nothing was synced")
		}
		image := t.TempDir() + "/image"
		if err := os.WriteFile(image, m.b, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("e2fsck", "-fn", image).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if out, err := exec.Command("debugfs", "-R", "dump /file "+image+".file", image).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if got, _ := os.ReadFile(image + ".file"); !bytes.Equal(got, want) {
			t.Error("the file's bytes are not on the disk")
		}
	})
}

// What a process leaves that was killed is gone after Clean, and Clean finds nothing the second time.
func TestClean(t *testing.T) {
	backends(t, func(t *testing.T, backend string) {
		m := &memory{b: make([]byte, 1<<20)}
		dev := device(t, backend, m)
		for range 2 {
			if err := Clean(t.Context(), dev.State(), false); err != nil {
				t.Fatal(err)
			}
		}
		<-dev.Done()
		if _, err := os.Stat(dev.State().File); backend == "fuse" && !os.IsNotExist(err) {
			t.Errorf("the FUSE file is there: %v", err)
		}
	})
}

// Kernels without LOOP_CONFIGURE get the same device in steps.
func TestOldLoop(t *testing.T) {
	if err := fuseAvailable(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	for _, readOnly := range []bool{true, false} {
		file := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(file, bytes.Repeat([]byte{7}, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		ctl, err := unix.Open("/dev/loop-control", unix.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		n, err := unix.IoctlRetInt(ctl, unix.LOOP_CTL_GET_FREE)
		unix.Close(ctl)
		if err != nil {
			t.Fatal(err)
		}
		s := State{Backend: "fuse", Label: filepath.Base(t.TempDir()) + "old", Device: "/dev/loop" + strconv.Itoa(n)}
		mode := os.O_RDWR
		if readOnly {
			mode = os.O_RDONLY
		}
		f, err := os.OpenFile(file, mode, 0)
		if err != nil {
			t.Fatal(err)
		}
		loop, err := os.OpenFile(s.Device, mode, 0)
		if err != nil {
			t.Fatal(err)
		}
		cfg := unix.LoopConfig{Fd: uint32(f.Fd())}
		copy(cfg.Info.File_name[:], s.Label)
		err = configureOldLoop(int(loop.Fd()), &cfg)
		loop.Close()
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(s.Device); err != nil || len(b) != 1<<20 || b[99] != 7 {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		ro, err := os.ReadFile("/sys/block/" + filepath.Base(s.Device) + "/ro")
		if want := map[bool]string{true: "1\n", false: "0\n"}[readOnly]; err != nil || string(ro) != want {
			t.Errorf("read-only is %q, %v, want %q", ro, err, want)
		}
		if err := Clean(t.Context(), s, false); err != nil {
			t.Error(err)
		}
		if fd, _ := ownLoop(s); fd >= 0 {
			t.Error("the loop device is left")
		}
	}
}

func BenchmarkReadDevice(b *testing.B) {
	for _, back := range kernelBackends() {
		b.Run(back.Name, func(b *testing.B) {
			if back.Err != nil {
				b.Skipf("skipped: %v", back.Err)
			}
			m := &memory{b: make([]byte, 256<<20)}
			dev := device(b, back.Name, ReadOnly(m))
			buf := make([]byte, 1<<20)
			b.SetBytes(m.Size())
			for b.Loop() {
				f, err := os.Open(dev.Path())
				if err != nil {
					b.Fatal(err)
				}
				for {
					if _, err := f.Read(buf); err == io.EOF {
						break
					} else if err != nil {
						b.Fatal(err)
					}
				}
				f.Close()
			}
		})
	}
}
