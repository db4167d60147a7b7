package main

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
)

// TestRegistry pushes a converted image to a registry and compares it there with its source.
func TestRegistry(t *testing.T) {
	reg := olareg.New(config.Config{Storage: config.ConfigStorage{StoreType: config.StoreMem}, Log: slog.New(slog.DiscardHandler)})
	defer reg.Close()
	srv := httptest.NewServer(reg)
	defer srv.Close()
	dir := t.TempDir()
	if err := writeLayout(dir+"/src", "index"); err != nil {
		t.Fatal(err)
	}
	src, dst := "oci:"+dir+"/src:index", "docker://"+strings.TrimPrefix(srv.URL, "http://")+"/team/app:nydus"
	for _, args := range [][]string{
		{"convert", src, dst, "-f", "nydus"},
		{"verify", src, dst},
		{"check", dst, "--deep"},
		{"graph", dst},
	} {
		out, err := command(t, dir+"/cache", append(args, "--plain-http", "--runtime", "inprocess")...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", args[0], err, out)
		}
	}
	cmd := command(t, dir+"/cache", "inspect", strings.TrimSuffix(dst, "nydus")+"other", "--plain-http")
	if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != 8 {
		t.Errorf("a tag that is not there: %v\n%s", err, out)
	}
}
