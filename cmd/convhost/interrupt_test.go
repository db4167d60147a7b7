//go:build unix

package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInterrupt signals a conversion that waits for a registry.
func TestInterrupt(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		asked := make(chan struct{}, 10)
		srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			asked <- struct{}{}
			<-r.Context().Done() // answers never
		}))
		out := t.TempDir() + "/out"
		cmd := command(t, t.TempDir(), "convert", "docker://"+strings.TrimPrefix(srv.URL, "http://")+"/app:1", "oci:"+out+":x", "-f", "nydus", "--plain-http", "--runtime", "inprocess")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-asked
		start := time.Now()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 130 {
			t.Errorf("%s: ended with %v, want exit code 130", sig, err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: took %s", sig, d)
		}
		if want := "convhost: interrupted\n"; stderr.String() != want {
			t.Errorf("%s: says %q, want %q", sig, stderr.String(), want)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: %s is there", sig, out)
		}
		srv.CloseClientConnections()
		srv.Close()
	}
}

// TestSecondInterrupt: a write that nobody reads cannot be stopped in an orderly way; a second signal ends the process.
func TestSecondInterrupt(t *testing.T) {
	dir := t.TempDir()
	if err := writeLayout(dir+"/src", "large"); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, dir, "convert", "oci:"+dir+"/src:large", "oci:"+dir+"/out:x", "-f", "nydus", "--runtime", "inprocess").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := command(t, dir, "unpack", "oci:"+dir+"/out:x", "-", "--runtime", "inprocess", "--work-dir", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // until the pipe is full
	ended := make(chan error, 1)
	go func() {
		state, err := cmd.Process.Wait() // not cmd.Wait, which would close the pipe
		if err == nil && state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
			err = errors.New(state.String())
		}
		ended <- err
	}()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Skipf("ended at the first signal: the pipe was not full yet (%v)", err)
	case <-time.After(300 * time.Millisecond):
	}
	for range 20 { // the first one may still be on its way when the next comes
		cmd.Process.Signal(os.Interrupt)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("ended with %v, want by the signal", err)
			}
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
	cmd.Process.Kill()
	t.Error("further signals do not end the process")
}
