package native_test

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/convhost/convhost/host/native"
	"github.com/convhost/convhost/internal/session"
)

// What was verified is what runs, also after the file was replaced and the process died.
func TestRestartRunsTheVerifiedBytes(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(path, b, 0o500); err != nil {
		t.Fatal(err)
	}
	p := start(t, func(c *native.Config) { c.Path = path })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	resp, err := do(t.Context(), p, "ok", session.Config{})
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(resp.State))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, pid)
	time.Sleep(50 * time.Millisecond)
	again, err := do(t.Context(), p, "ok", session.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if string(again.State) == string(resp.State) {
		t.Error("a killed process answered")
	}
}

// Calls, failures and restarts leave no descriptor open in the host.
func TestNoDescriptorStaysOpen(t *testing.T) {
	b := layerBytes(t, 3)
	_, file := fileOf(t, b)
	run := func() {
		p, err := tryStart(t, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, what := range []string{"copy", "entries", "open", "crash", "copy"} {
			for _, open := range []func() *session.Layer{
				func() *session.Layer { return layerOf(b, file) }, func() *session.Layer { return layerOf(b, reader(b)) },
			} {
				_, _ = do(t.Context(), p, what, session.Config{Layer: open(), OpenSink: new(memorySinks).open})
			}
		}
		p.Close()
	}
	run()
	before := descriptors(t)
	for range 3 {
		run()
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return len(names)
}
