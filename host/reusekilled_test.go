package host

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/plugins/overlaybd"
)

// stopper stops the process at a call of Put, for ever.
type stopper struct {
	dedup.Store
	after int
}

func (s *stopper) Put(ctx context.Context, r *dedup.Record) error {
	if s.after--; s.after < 0 {
		fmt.Println("ready")
		select {}
	}
	return s.Store.Put(ctx, r)
}

// TestReuseKilled: a process that is killed between publishing and recording leaves a store that is right.
func TestReuseKilled(t *testing.T) {
	if after, err := strconv.Atoi(os.Getenv("CONVHOST_TEST_STOP")); err == nil {
		store, err := dedup.OpenDir(os.Getenv("CONVHOST_TEST_STORE"))
		if err != nil {
			t.Fatal(err)
		}
		h, err := New(WithWorkDir(os.Getenv("CONVHOST_TEST_WORK")), WithBuiltin(builtin(overlaybd.New())), WithDedup(&stopper{store, after}))
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.Convert(t.Context(), ConvertRequest{Source: demo, Targets: []Target{{Format: "overlaybd", Dest: os.Getenv("CONVHOST_TEST_DEST")}}})
		t.Fatal("was not stopped: ", err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := reusing(t, overlaybd.New(), nil)
	want := plain.convert(demo, "overlaybd", plain.ref("out")).Root
	for after := range 3 {
		path := filepath.Join(t.TempDir(), "dedup")
		dest := "oci:" + filepath.Join(t.TempDir(), "out") + ":tag"
		cmd := exec.Command(exe, "-test.run=^TestReuseKilled$")
		cmd.Env = append(os.Environ(), "CONVHOST_TEST_STOP="+fmt.Sprint(after), "CONVHOST_TEST_STORE="+path, "CONVHOST_TEST_WORK="+t.TempDir(), "CONVHOST_TEST_DEST="+dest)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		cmd.Process.Kill()
		cmd.Wait()
		if line != "ready\n" {
			t.Fatalf("helper said %q, %v", line, err)
		}
		store, err := dedup.OpenDir(path)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		e, c := reusing(t, overlaybd.New(), store)
		same(t, "what was published", e.image(dest).Root.Desc.Digest, want.Digest)
		for range 2 {
			same(t, "root", e.convert(demo, "overlaybd", dest).Root, want)
		}
		same(t, "warnings", e.count(EventWarning), 0)
		c.calls()
		e.convert(demo, "overlaybd", dest)
		same(t, "calls", c.calls(), "0 converted, 0 merged")
	}
}
