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
